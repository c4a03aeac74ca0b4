package stomp

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
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// eventPrefix of the headers that carry a CloudEvent: what JMS can take for the name of a property, and selectors ask for.
const eventPrefix = "ce_"

// Names of the extension attributes that headers of JMS become.
const (
	nameCorrelationID = "correlationid"
	nameReplyTo       = "replyto"
	nameDestination   = "destination"
	nameJMSType       = "jmstype"
)

// receiver makes messages of MESSAGE frames.
type receiver struct {
	binding.Receiver
	format string
	// endpoint that ids are unique in.
	endpoint string
	content  bool
}

func newReceiver(c *contract.Config, o sourceOptions) *receiver {
	return &receiver{
		Receiver: binding.Receiver{EventType: c.Source.EventType, Marking: c.Connector.Marking}, format: c.Source.Format, content: o.Identity == identityContent,
		endpoint: url.PathEscape(o.Destination),
	}
}

// message of a frame. An error says why the bus can never take it.
func (r *receiver) message(f *frame) (*sdk.Message, error) {
	if f.skipped > 0 {
		return nil, fmt.Errorf("the body has %d bytes or more, and the bus takes %d", f.skipped, contract.MaxMessageSize)
	}
	if err := sdk.CheckFormat(r.format, f.body); err != nil {
		return nil, err
	}
	m := &sdk.Message{Data: f.body, ContentType: f.get(hdrContentType)}
	if m.ContentType == "" || !binding.Printable(m.ContentType) {
		m.ContentType = binding.ContentType(r.format)
	}
	if ms, err := strconv.ParseInt(f.get("timestamp"), 10, 64); err == nil && ms > 0 {
		m.Time = time.UnixMilli(ms).UTC()
	}
	attributes, err := attributesOf(f)
	if err != nil {
		return nil, err
	}
	event, err := r.Attributes(m, attributes)
	if err != nil {
		return nil, err
	}
	binding.Trace(m, f.get(contract.HeaderTraceParent), f.get(contract.HeaderTraceState))
	binding.Missing(m, nameCorrelationID, f.get("correlation-id"))
	binding.Missing(m, nameReplyTo, f.get("reply-to"))
	binding.Missing(m, nameDestination, f.get(hdrDestination))
	binding.Missing(m, nameJMSType, f.get("type"))
	r.others(m, f)
	r.identify(m, f, event)
	return m, nil
}

// attributesOf a CloudEvent, if the headers carry one.
func attributesOf(f *frame) (map[string]string, error) {
	var attributes map[string]string
	for _, h := range f.headers {
		name, ok := eventAttribute(h.name)
		if !ok {
			continue
		}
		if !binding.Clean(h.value) {
			return nil, fmt.Errorf("header %.60q is no text of UTF-8 without control characters", h.name)
		}
		if attributes == nil {
			attributes = make(map[string]string, 8)
		}
		if _, given := attributes[name]; !given {
			attributes[name] = h.value
		}
	}
	return attributes, nil
}

// eventAttribute is the name of the CloudEvents attribute that a header carries. What other bindings write is understood too.
func eventAttribute(header string) (string, bool) {
	for _, prefix := range []string{eventPrefix, "cloudEvents:", "cloudEvents_"} {
		if name, ok := strings.CutPrefix(header, prefix); ok && name != "" {
			return name, true
		}
	}
	return "", false
}

// brokerHeaders are the protocol's and the brokers' own: they say how a message was delivered, not what it is.
var brokerHeaders = map[string]bool{
	hdrAck: true, hdrContentLength: true, hdrContentType: true, hdrDestination: true, hdrMessageID: true, hdrSubscription: true, hdrID: true, hdrReceipt: true,
	"correlation-id": true, "reply-to": true, "type": true, "timestamp": true, "expires": true, "priority": true, "persistent": true, "redelivered": true,
	"redelivery-counter": true, "amqp-message-id": true, "transformation": true, "transformation-error": true, "original-destination": true,
}

// others become extensions; of two that become one name the first by name counts, always the same.
func (r *receiver) others(m *sdk.Message, f *frame) {
	names := make([]string, 0, len(f.headers))
	for _, h := range f.headers {
		if _, event := eventAttribute(h.name); !event && !brokerHeaders[h.name] && !strings.HasPrefix(h.name, "metip-") && !strings.HasPrefix(strings.ToLower(h.name), "jmsx") {
			names = append(names, h.name)
		}
	}
	slices.Sort(names)
	for _, header := range names {
		if name, ok := binding.Extension(header); ok {
			binding.Missing(m, name, f.get(header))
		}
	}
}

// identify the message: by the CloudEvent's source and id, by what the producer or JMS calls it, or as the options say. Endpoints keep them apart.
func (r *receiver) identify(m *sdk.Message, f *frame, e binding.Event) {
	id := f.get("amqp-message-id") // RabbitMQ's message-id counts deliveries, and this is the producer's
	if own := f.get(hdrMessageID); id == "" && strings.HasPrefix(own, "ID:") {
		id = own // JMS calls a message so for ever
	}
	switch {
	case e.ID != "":
		binding.Identify(m, e, r.endpoint)
	case id != "" && binding.Clean(id) && len(id) <= 512:
		m.ID, m.Endpoint = id, r.endpoint+"/id"
	case r.content:
		m.ID, m.Endpoint = digest(f), r.endpoint+"/content"
	default:
		m.ID, m.Endpoint = rand.Text(), r.endpoint+"/delivery"
	}
}

// digest of all that a producer has said: it is the same whenever the message is delivered.
func digest(f *frame) string {
	h := sha256.New()
	lines := make([]string, 0, len(f.headers))
	for _, p := range f.headers {
		switch p.name {
		case hdrAck, hdrMessageID, hdrSubscription, "redelivered", "redelivery-counter", hdrContentLength:
		default:
			lines = append(lines, part(p.name)+part(p.value))
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		write(h, line)
	}
	h.Write(f.body)
	return hex.EncodeToString(h.Sum(nil))
}

func part(s string) string { return strconv.Itoa(len(s)) + ":" + s }

func write(h hash.Hash, s string) { h.Write([]byte(s)) }
