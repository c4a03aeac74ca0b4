package amqp10

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"slices"
	"strconv"
	"strings"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// Names of the extension attributes that properties become.
const (
	nameCorrelationID   = "correlationid"
	nameReplyTo         = "replyto"
	nameDestination     = "destination"
	nameLabel           = "label"
	nameUserID          = "userid"
	nameContentEncoding = "contentencoding"
)

// ownNames are those of the properties above, which no application property may stand in for.
var ownNames = []string{nameCorrelationID, nameReplyTo, nameDestination, nameLabel, nameUserID, nameContentEncoding}

// receiver makes messages of the protocol's.
type receiver struct {
	binding.Receiver
	format string
	// endpoint that ids are unique in: hostname, where one is set, and address.
	endpoint string
	content  bool
}

func newReceiver(c *contract.Config, o sourceOptions) *receiver {
	r := &receiver{
		Receiver: binding.Receiver{EventType: c.Source.EventType, Marking: c.Connector.Marking}, format: c.Source.Format, content: o.Identity == identityContent,
		endpoint: url.PathEscape(o.Address),
	}
	if o.Connection.Hostname != "" {
		r.endpoint = url.PathEscape(o.Connection.Hostname) + "/" + r.endpoint
	}
	return r
}

// none stands for the properties of a message that has none.
var none amqp.MessageProperties

func propertiesOf(d *amqp.Message) *amqp.MessageProperties {
	if d.Properties == nil {
		return &none
	}
	return d.Properties
}

// bodyOf a message: its sections of data, or its value that is a string or binary.
func bodyOf(d *amqp.Message) ([]byte, error) {
	switch {
	case len(d.Sequence) > 0:
		return nil, errors.New("its body is an amqp-sequence, and bodies are data, or amqp-value with a string or binary")
	case d.Value == nil && len(d.Data) == 1:
		return d.Data[0], nil
	case d.Value == nil:
		return bytes.Join(d.Data, nil), nil
	}
	switch v := d.Value.(type) {
	case string:
		return []byte(v), nil
	case []byte:
		return v, nil
	}
	return nil, fmt.Errorf("its body is an amqp-value of the type %s, and bodies are data, or amqp-value with a string or binary", strings.ReplaceAll(fmt.Sprintf("%T", d.Value), "interface {}", "any"))
}

// size of a body, about.
func size(d *amqp.Message) int {
	n := 0
	for _, part := range d.Data {
		n += len(part)
	}
	switch v := d.Value.(type) {
	case string:
		n += len(v)
	case []byte:
		n += len(v)
	}
	return n
}

// message of the protocol's. An error says why the bus can never take it.
func (r *receiver) message(d *amqp.Message) (*sdk.Message, error) {
	body, err := bodyOf(d)
	if err != nil {
		return nil, err
	}
	if len(body) > contract.MaxMessageSize {
		return nil, fmt.Errorf("the body has %d bytes, and the bus takes %d", len(body), contract.MaxMessageSize)
	}
	if err := sdk.CheckFormat(r.format, body); err != nil {
		return nil, err
	}
	p := propertiesOf(d)
	m := &sdk.Message{Data: body, ContentType: optional(p.ContentType)}
	if m.ContentType == "" || !binding.Printable(m.ContentType) {
		m.ContentType = binding.ContentType(r.format)
	}
	if p.CreationTime != nil && p.CreationTime.Unix() > 0 {
		m.Time = *p.CreationTime
	}
	attributes, err := attributesOf(d.ApplicationProperties)
	if err != nil {
		return nil, err
	}
	event, err := r.Attributes(m, attributes)
	if err != nil {
		return nil, err
	}
	parent, _ := d.ApplicationProperties[contract.HeaderTraceParent].(string)
	state, _ := d.ApplicationProperties[contract.HeaderTraceState].(string)
	binding.Trace(m, parent, state)
	properties(m, p)
	others(m, d.ApplicationProperties)
	r.identify(m, d, event)
	return m, nil
}

func optional(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// attributesOf a CloudEvent in binary mode, if the application properties carry one.
func attributesOf(all map[string]any) (map[string]string, error) {
	var attributes map[string]string
	for property, raw := range all {
		name, ok := binding.AMQPAttribute(property)
		if !ok {
			continue
		}
		value, ok := text(raw)
		if !ok || !binding.Clean(value) {
			return nil, fmt.Errorf("property %.60q is no text of UTF-8 without control characters", property)
		}
		if attributes == nil {
			attributes = make(map[string]string, 8)
		}
		attributes[name] = value
	}
	return attributes, nil
}

// text of a simple value; binary has none.
func text(value any) (string, bool) {
	switch v := value.(type) {
	case amqp.UUID:
		return v.String(), true
	case amqp.Symbol:
		return string(v), true
	}
	return binding.Text(value)
}

// idText of a message-id or correlation-id: a string is itself, and the other three types say which they are.
func idText(id any) string {
	switch v := id.(type) {
	case string:
		return v
	case uint64:
		return "ulong:" + strconv.FormatUint(v, 10)
	case amqp.UUID:
		return "uuid:" + v.String()
	case []byte:
		return "binary:" + hex.EncodeToString(v)
	}
	return ""
}

// properties become extension attributes, unless a CloudEvent says them itself. The group is the partition.
func properties(m *sdk.Message, p *amqp.MessageProperties) {
	binding.Missing(m, nameCorrelationID, idText(p.CorrelationID))
	binding.Missing(m, nameReplyTo, optional(p.ReplyTo))
	binding.Missing(m, nameDestination, optional(p.To))
	binding.Missing(m, nameLabel, optional(p.Subject))
	binding.Missing(m, nameUserID, string(p.UserID))
	binding.Missing(m, nameContentEncoding, optional(p.ContentEncoding))
	if group := optional(p.GroupID); m.PartitionKey == "" && len(group) <= 256 && binding.Clean(group) {
		m.PartitionKey = group
	}
}

// others become extensions; of two that become one name the first by name counts, always the same.
func others(m *sdk.Message, all map[string]any) {
	if len(all) == 0 {
		return
	}
	names := make([]string, 0, len(all))
	for property := range all {
		if _, event := binding.AMQPAttribute(property); !event && !strings.HasPrefix(property, "metip-") {
			names = append(names, property)
		}
	}
	slices.Sort(names)
	for _, property := range names {
		name, ok := binding.Extension(property)
		if !ok || slices.Contains(ownNames, name) {
			continue
		}
		if value, ok := text(all[property]); ok {
			binding.Missing(m, name, value)
		}
	}
}

// identify the message: by the CloudEvent's source and id, by the property message-id, or as the options say. Endpoints keep the three apart.
func (r *receiver) identify(m *sdk.Message, d *amqp.Message, e binding.Event) {
	id := idText(propertiesOf(d).MessageID)
	switch {
	case e.ID != "":
		binding.Identify(m, e, r.endpoint)
	case id != "" && binding.Clean(id) && len(id) <= 512:
		m.ID, m.Endpoint = id, r.endpoint+"/id"
	case r.content:
		m.ID, m.Endpoint = digest(d, m.Data), r.endpoint+"/content"
	default:
		m.ID, m.Endpoint = rand.Text(), r.endpoint+"/delivery"
	}
}

// digest of all that a producer has said: it is the same whenever the message is delivered.
func digest(d *amqp.Message, body []byte) string {
	h := sha256.New()
	p := propertiesOf(d)
	created := ""
	if p.CreationTime != nil {
		created = strconv.FormatInt(p.CreationTime.UnixMilli(), 10)
	}
	for _, s := range []string{
		idText(p.MessageID), string(p.UserID), optional(p.To), optional(p.Subject), optional(p.ReplyTo), idText(p.CorrelationID), optional(p.ContentType), optional(p.ContentEncoding),
		created, optional(p.GroupID), optional(p.ReplyToGroupID),
	} {
		part(h, s)
	}
	names := make([]string, 0, len(d.ApplicationProperties))
	for name := range d.ApplicationProperties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		part(h, name)
		part(h, fmt.Sprint(d.ApplicationProperties[name]))
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func part(h hash.Hash, s string) {
	h.Write([]byte(strconv.Itoa(len(s)) + ":"))
	h.Write([]byte(s))
}
