package rabbitmq

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// publication is a message on its way to an exchange.
type publication struct {
	amqp.Publishing
	exchange, key string
}

// operation publishes to one exchange.
type operation struct {
	publisher  *publisher
	exchange   string
	key        *steps.Template
	fixed      string // the key, where it holds no expression
	headers    []headerTemplate
	unroutable string
	mode       uint8
	priority   uint8
	expiration string
	opaque     bool
}

type headerTemplate struct {
	name  string
	value *steps.Template
}

func newOperation(p *publisher, o publishOptions) (*operation, error) {
	op := &operation{publisher: p, exchange: o.Exchange, unroutable: o.Unroutable, mode: amqp.Persistent, opaque: true}
	if o.Transient {
		op.mode = amqp.Transient
	}
	if o.Priority != nil {
		op.priority = uint8(*o.Priority)
	}
	if o.Expiration > 0 {
		op.expiration = strconv.FormatInt(max(1, time.Duration(o.Expiration).Milliseconds()), 10)
	}
	var err error
	if op.key, err = steps.CompileTemplate(o.RoutingKey); err != nil {
		return nil, fmt.Errorf("routingKey: %w", err)
	}
	if strings.ContainsAny(o.RoutingKey, "{}") {
		op.opaque = false
	} else {
		op.key, op.fixed = nil, o.RoutingKey
	}
	for name, text := range o.Headers {
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		op.opaque = op.opaque && !strings.Contains(text, "{")
		op.headers = append(op.headers, headerTemplate{name, value})
	}
	return op, nil
}

// publication of a message. An error is the message's own.
func (o *operation) publication(d *sdk.Delivery) (p publication, err error) {
	m := d.Message
	p.exchange, p.key = o.exchange, o.fixed
	if o.key != nil {
		if p.key, err = o.key.Expand(m, nil); err != nil {
			return p, fmt.Errorf("routingKey: %w", err)
		}
		if p.key == "" && o.exchange == "" {
			return p, fmt.Errorf("routingKey: it is empty, and so the name of no queue")
		}
	}
	if len(p.key) > maxShort {
		return p, fmt.Errorf("routingKey: it has %d bytes, and %d are allowed", len(p.key), maxShort)
	}
	if len(m.ContentType) > maxShort {
		return p, fmt.Errorf("the content type is longer than %d bytes", maxShort)
	}
	p.Publishing = amqp.Publishing{
		Headers: eventHeaders(m), ContentType: m.ContentType, DeliveryMode: o.mode, Priority: o.priority, Expiration: o.expiration,
		MessageId: publicationID(d), Timestamp: m.Time, Type: m.Type, AppId: "metip", Body: m.Data,
	}
	if id := m.Headers[nameCorrelationID]; len(id) <= maxShort {
		p.CorrelationId = id
	}
	for i := range o.headers {
		h := &o.headers[i]
		value, err := h.value.Expand(m, nil)
		if err != nil {
			return p, fmt.Errorf("header %s: %w", h.name, err)
		}
		p.Headers[h.name] = value
	}
	return p, nil
}

// publicationID is the same for every attempt and every Replay, and another for each destination.
func publicationID(d *sdk.Delivery) string {
	id := d.Durable + "/" + d.MessageID
	if len(id) <= maxShort {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// eventHeaders tell the system what the bus knows of the message: a CloudEvent in binary mode, and the trace context.
func eventHeaders(m *sdk.Message) amqp.Table {
	h := make(amqp.Table, 8+len(m.Headers))
	h[binding.AMQPPrefix+"specversion"] = contract.SpecVersion
	h[binding.AMQPPrefix+"id"] = m.ID
	h[binding.AMQPPrefix+"source"] = m.Source
	h[binding.AMQPPrefix+"type"] = m.Type
	if !m.Time.IsZero() {
		h[binding.AMQPPrefix+"time"] = m.Time.UTC().Format(time.RFC3339Nano)
	}
	if m.Subject != "" {
		h[binding.AMQPPrefix+"subject"] = m.Subject
	}
	if m.PartitionKey != "" {
		h[binding.AMQPPrefix+"partitionkey"] = m.PartitionKey
	}
	if m.History != "" {
		h[contract.HeaderHistory] = m.History
	}
	for name, value := range m.Headers {
		if name == contract.HeaderTraceParent || name == contract.HeaderTraceState {
			h[name] = value
		} else {
			h[binding.AMQPPrefix+name] = value
		}
	}
	return h
}
