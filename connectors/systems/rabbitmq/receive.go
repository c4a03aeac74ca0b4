package rabbitmq

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/url"
	"slices"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// receiver makes messages of deliveries.
type receiver struct {
	binding.Receiver
	format string
	// endpoint that ids are unique in: virtual host and queue.
	endpoint string
	content  bool
}

func newReceiver(c *contract.Config, o sourceOptions) *receiver {
	return &receiver{
		Receiver: binding.Receiver{EventType: c.Source.EventType, Marking: c.Connector.Marking}, format: c.Source.Format, content: o.Identity == identityContent,
		endpoint: url.PathEscape(o.Connection.VirtualHost) + "/" + url.PathEscape(o.Queue),
	}
}

// message of a delivery. An error says why the bus can never take it.
func (r *receiver) message(d *amqp.Delivery) (*sdk.Message, error) {
	if len(d.Body) > contract.MaxMessageSize {
		return nil, fmt.Errorf("the body has %d bytes, and the bus takes %d", len(d.Body), contract.MaxMessageSize)
	}
	if err := sdk.CheckFormat(r.format, d.Body); err != nil {
		return nil, err
	}
	m := &sdk.Message{Data: d.Body, ContentType: d.ContentType}
	if m.ContentType == "" || !binding.Printable(m.ContentType) {
		m.ContentType = binding.ContentType(r.format)
	}
	if d.Timestamp.Unix() > 0 {
		m.Time = d.Timestamp
	}
	attributes, err := attributesOf(d.Headers)
	if err != nil {
		return nil, err
	}
	event, err := r.Attributes(m, attributes)
	if err != nil {
		return nil, err
	}
	parent, _ := d.Headers[contract.HeaderTraceParent].(string)
	state, _ := d.Headers[contract.HeaderTraceState].(string)
	binding.Trace(m, parent, state)
	r.properties(m, d)
	r.identify(m, d, event)
	return m, nil
}

// attributesOf a CloudEvent in binary mode, if the headers carry one.
func attributesOf(headers amqp.Table) (map[string]string, error) {
	var attributes map[string]string
	for header, raw := range headers {
		name, ok := binding.AMQPAttribute(header)
		if !ok {
			continue
		}
		value, ok := binding.Text(raw)
		if !ok || !binding.Clean(value) {
			return nil, fmt.Errorf("header %.60q is no text of UTF-8 without control characters", header)
		}
		if attributes == nil {
			attributes = make(map[string]string, 8)
		}
		attributes[name] = value
	}
	return attributes, nil
}

// properties and application headers become extension attributes, unless a CloudEvent says them itself.
func (r *receiver) properties(m *sdk.Message, d *amqp.Delivery) {
	missing := func(name, value string) { binding.Missing(m, name, value) }
	missing(nameCorrelationID, d.CorrelationId)
	missing(nameReplyTo, d.ReplyTo)
	missing(nameAppID, d.AppId)
	missing(nameUserID, d.UserId)
	missing(nameExchange, d.Exchange)
	missing(nameRoutingKey, d.RoutingKey)
	switch {
	case d.Type == "" || d.Type == m.Type:
	case m.Type == "" && m.Headers[binding.MessageType] == "" && r.OwnType(d.Type):
		m.Type = d.Type
	default:
		missing(binding.MessageType, d.Type)
	}
	if len(d.Headers) == 0 {
		return
	}
	names := make([]string, 0, len(d.Headers))
	for header := range d.Headers {
		names = append(names, header)
	}
	slices.Sort(names) // of two that become one name the first counts, always the same
	for _, header := range names {
		if _, ok := binding.AMQPAttribute(header); ok || strings.HasPrefix(header, "metip-") {
			continue
		}
		if name, ok := extension(header); ok {
			if value, ok := binding.Text(d.Headers[header]); ok {
				missing(name, value)
			}
		}
	}
}

// identify the message: by the CloudEvent's source and id, by the property message-id, or as the options say. Endpoints keep the three apart.
func (r *receiver) identify(m *sdk.Message, d *amqp.Delivery, e binding.Event) {
	switch {
	case e.ID != "":
		binding.Identify(m, e, r.endpoint)
	case d.MessageId != "" && binding.Clean(d.MessageId):
		m.ID, m.Endpoint = d.MessageId, r.endpoint+"/id"
	case r.content:
		m.ID, m.Endpoint = digest(d), r.endpoint+"/content"
	default:
		m.ID, m.Endpoint = rand.Text(), r.endpoint+"/delivery"
	}
}

// digest of all that a producer has said: it is the same whenever the message is delivered.
func digest(d *amqp.Delivery) string {
	h := sha256.New()
	part := func(s string) {
		write(h, strconv.Itoa(len(s))+":")
		write(h, s)
	}
	for _, s := range []string{d.Exchange, d.RoutingKey, d.ContentType, d.ContentEncoding, d.CorrelationId, d.ReplyTo, d.Type, d.AppId, d.UserId, strconv.FormatInt(d.Timestamp.Unix(), 10)} {
		part(s)
	}
	names := make([]string, 0, len(d.Headers))
	for name := range d.Headers {
		if !strings.HasPrefix(name, "x-") { // the server adds those, and counts in them
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		part(name)
		part(fmt.Sprint(d.Headers[name]))
	}
	h.Write(d.Body)
	return hex.EncodeToString(h.Sum(nil))
}

func write(h hash.Hash, s string) { h.Write([]byte(s)) }
