package amqp10

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// eventPrefix of the properties that carry a CloudEvent: of the two that the binding knows the one that JMS can take for the name of a property.
const eventPrefix = "cloudEvents_"

// publication is a message on its way to an address.
type publication struct {
	address string
	*amqp.Message
}

// operation sends messages.
type operation struct {
	publisher *publisher
	options   sendOptions
	// name of the address, for errors; template is nil where it is the address of all.
	name       string
	template   *steps.Template
	subject    *steps.Template // nil: none
	properties []propertyTemplate
	opaque     bool
}

type propertyTemplate struct {
	name  string
	value *steps.Template
}

// fixed tells whether a text holds no expression.
func fixed(text string) bool { return !strings.ContainsAny(text, "{}") }

func newOperation(p *publisher, o sendOptions) (*operation, error) {
	op := &operation{publisher: p, options: o, name: o.Address, opaque: fixed(o.Address) && fixed(o.Subject)}
	var err error
	if !fixed(o.Address) {
		if op.template, err = steps.CompileTemplate(o.Address); err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
	}
	if o.Subject != "" {
		if op.subject, err = steps.CompileTemplate(o.Subject); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
	}
	for name, text := range o.Properties {
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("property %s: %w", name, err)
		}
		op.opaque = op.opaque && fixed(text)
		op.properties = append(op.properties, propertyTemplate{name, value})
	}
	slices.SortFunc(op.properties, func(a, b propertyTemplate) int { return strings.Compare(a.name, b.name) })
	return op, nil
}

// publication of a message. An error is the message's own.
func (o *operation) publication(d *sdk.Delivery) (p publication, err error) {
	m := d.Message
	p.address = o.options.Address
	if o.template != nil {
		if p.address, err = o.template.Expand(m, nil); err != nil {
			return p, err
		}
		if p.address == "" || len(p.address) > maxAddress || !binding.Clean(p.address) {
			return p, errors.New("it is empty, too long, or holds control characters")
		}
	}
	properties := &amqp.MessageProperties{MessageID: binding.Short(d.Durable + "/" + d.MessageID)}
	if m.ContentType != "" {
		properties.ContentType = &m.ContentType
	}
	if id := m.Headers[nameCorrelationID]; id != "" {
		properties.CorrelationID = id
	}
	if !m.Time.IsZero() {
		properties.CreationTime = &m.Time
	}
	if o.options.Grouped && m.PartitionKey != "" {
		properties.GroupID = &m.PartitionKey
	}
	if o.subject != nil {
		subject, err := o.subject.Expand(m, nil)
		if err != nil {
			return p, fmt.Errorf("subject: %w", err)
		}
		properties.Subject = &subject
	}
	p.Message = &amqp.Message{Header: o.header(), Properties: properties, ApplicationProperties: eventProperties(m)}
	for i := range o.properties {
		h := &o.properties[i]
		value, err := h.value.Expand(m, nil)
		if err != nil {
			return p, fmt.Errorf("property %s: %w", h.name, err)
		}
		p.ApplicationProperties[h.name] = value
	}
	switch {
	case o.options.Body != bodyValue:
		p.Data = [][]byte{m.Data}
	case m.Format == sdk.FormatBinary:
		p.Value = m.Data
	default:
		p.Value = string(m.Data)
	}
	return p, nil
}

func (o *operation) header() *amqp.MessageHeader {
	h := &amqp.MessageHeader{Durable: !o.options.Transient, Priority: 4, TTL: time.Duration(o.options.Expiration)}
	if o.options.Priority != nil {
		h.Priority = uint8(*o.options.Priority)
	}
	return h
}

// eventProperties tell the system what the bus knows of the message: a CloudEvent in binary mode, and the trace context.
func eventProperties(m *sdk.Message) map[string]any {
	h := make(map[string]any, 8+len(m.Headers))
	h[eventPrefix+"specversion"] = contract.SpecVersion
	h[eventPrefix+"id"] = m.ID
	h[eventPrefix+"source"] = m.Source
	h[eventPrefix+"type"] = m.Type
	if !m.Time.IsZero() {
		h[eventPrefix+"time"] = m.Time.UTC().Format(time.RFC3339Nano)
	}
	if m.Subject != "" {
		h[eventPrefix+"subject"] = m.Subject
	}
	if m.PartitionKey != "" {
		h[eventPrefix+"partitionkey"] = m.PartitionKey
	}
	if m.History != "" {
		h[contract.HeaderHistory] = m.History
	}
	for name, value := range m.Headers {
		if name == contract.HeaderTraceParent || name == contract.HeaderTraceState {
			h[name] = value
		} else {
			h[eventPrefix+name] = value
		}
	}
	return h
}
