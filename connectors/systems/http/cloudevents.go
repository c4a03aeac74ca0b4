package http

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	mediaStructured = "application/cloudevents+json"
	mediaBatch      = "application/cloudevents-batch+json"
	mediaEvents     = "application/cloudevents" // begins every other, such as +xml and +avro, which are not taken

	maxBatchEvents    = 1000
	maxAttributes     = 64
	maxAttributeBytes = 32 << 10 // of one event, names and values
	maxIDBytes        = 1024
)

// event collects one CloudEvent's attributes.
type event struct {
	message *sdk.Message
	marking string
	count   int
	bytes   int
	seen    map[string]struct{}
	version string
	source  string
}

func newEvent() *event {
	return &event{message: &sdk.Message{}, seen: make(map[string]struct{}, 8)}
}

// set one attribute. Whoever gives it twice means two things.
func (e *event) set(name, value string) error {
	if !attributeName(name) {
		return fmt.Errorf("attribute name %.40q: use lower-case letters and digits", name)
	}
	if err := checkAttribute(value); err != nil {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	if _, twice := e.seen[name]; twice {
		return fmt.Errorf("attribute %s is given twice", name)
	}
	e.seen[name] = struct{}{}
	e.count++
	e.bytes += len(name) + len(value)
	if e.count > maxAttributes || e.bytes > maxAttributeBytes {
		return fmt.Errorf("more than %d attributes or %d bytes of them", maxAttributes, maxAttributeBytes)
	}
	m := e.message
	switch name {
	case "specversion":
		e.version = value
	case "id":
		m.ID = value
	case "source":
		e.source = value
	case "type":
		m.Type = value
	case "subject":
		m.Subject = value
	case "datacontenttype":
		m.ContentType = value
	case "partitionkey":
		m.PartitionKey = value
	case "marking":
		e.marking = value
	case "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return fmt.Errorf("attribute time: %.40q is not a time as RFC 3339 has it", value)
		}
		m.Time = t
	case "traceparent", "tracestate":
		setTrace(m, name, value)
	default:
		setHeader(m, name, value)
	}
	return nil
}

// finish checks what every event must have, and makes the message's identity of source and id: CloudEvents promise that these two
// together name one event, and an id alone is not unique among several producers.
func (e *event) finish(path, marking string) (*sdk.Message, error) {
	m := e.message
	switch {
	case e.version != contract.SpecVersion:
		return nil, fmt.Errorf("attribute specversion is %.20q: send 1.0", e.version)
	case m.ID == "":
		return nil, errors.New("attribute id is missing")
	case len(m.ID) > maxIDBytes || len(e.source) > maxIDBytes:
		return nil, fmt.Errorf("attribute id or source is longer than %d bytes", maxIDBytes)
	case e.source == "":
		return nil, errors.New("attribute source is missing")
	case m.Type == "":
		return nil, errors.New("attribute type is missing")
	case e.marking != "" && e.marking != marking:
		return nil, fmt.Errorf("attribute marking %.40q: this endpoint takes messages marked %q only; leave it out", e.marking, marking)
	}
	m.Source = e.source
	m.Endpoint = eventEndpoint(path, e.source)
	return m, nil
}

// Endpoints of messages: ids are unique within them. The parts between them hold no slash, so that no two pairs of source and id, and
// no Idempotency-Key, ever make the same message id.
func eventEndpoint(path, source string) string {
	return strings.TrimSuffix(path, "/") + "/event/" + url.PathEscape(source)
}

func keyEndpoint(path string) string { return strings.TrimSuffix(path, "/") + "/key" }

func attributeName(name string) bool {
	if name == "" || len(name) > 40 {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func setHeader(m *sdk.Message, name, value string) {
	if m.Headers == nil {
		m.Headers = make(map[string]string, 4)
	}
	m.Headers[name] = value
}

var traceParent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// setTrace carries the trace context on; one that is malformed is left out, as W3C Trace Context asks.
func setTrace(m *sdk.Message, name, value string) {
	if (name == "traceparent" && traceParent.MatchString(value)) || (name == "tracestate" && len(value) <= 512 && checkAttribute(value) == nil) {
		setHeader(m, name, value)
	}
}

// hasEventHeaders tells whether a request is a CloudEvent in binary mode, or means to be one.
func hasEventHeaders(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Ce-") {
			return true
		}
	}
	return false
}

// parseBinary reads an event whose attributes are headers and whose data is the body.
func parseBinary(h http.Header, body []byte) (*event, error) {
	e := newEvent()
	for name, values := range h {
		attribute, ok := strings.CutPrefix(name, "Ce-")
		if !ok {
			continue
		}
		if len(values) != 1 {
			return nil, fmt.Errorf("header %s is given twice", name)
		}
		value, err := decodeAttribute(values[0])
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		attribute = strings.ToLower(attribute)
		if attribute == "datacontenttype" || attribute == "data" {
			return nil, fmt.Errorf("header %s: send Content-Type and the body instead", name)
		}
		if err := e.set(attribute, value); err != nil {
			return nil, err
		}
	}
	e.message.ContentType = h.Get("Content-Type")
	e.message.Data = body
	return e, nil
}

// parseStructured reads an event in the JSON format: doc is valid JSON. The data is not decoded: it keeps its bytes.
func parseStructured(doc []byte) (*event, error) {
	e := newEvent()
	var data, data64 []byte
	err := eachMember(doc, func(name string, value []byte) error {
		switch name {
		case "data":
			if data != nil {
				return errors.New("member data is given twice")
			}
			data = value
			return nil
		case "data_base64":
			if data64 != nil {
				return errors.New("member data_base64 is given twice")
			}
			data64 = value
			return nil
		}
		text, null, err := attributeText(value)
		if err != nil {
			return fmt.Errorf("attribute %.40q: %w", name, err)
		}
		if null {
			return nil
		}
		return e.set(name, text)
	})
	if err != nil {
		return nil, err
	}
	return e, e.setData(data, data64)
}

func (e *event) setData(data, data64 []byte) error {
	m := e.message
	if data != nil && data64 != nil {
		return errors.New("send data or data_base64, not both")
	}
	switch {
	case data64 != nil:
		text, err := unquote(data64)
		if err != nil {
			return errors.New("member data_base64 is not a string")
		}
		if m.Data, err = base64.StdEncoding.DecodeString(text); err != nil {
			return errors.New("member data_base64 is not base64")
		}
	case data == nil:
	case m.ContentType == "" || isJSON(mediaType(m.ContentType)) || data[0] != '"':
		m.Data = data
		if m.ContentType == "" {
			m.ContentType = "application/json"
		}
	default:
		text, err := unquote(data)
		if err != nil {
			return errors.New("member data is not a string")
		}
		m.Data = []byte(text)
	}
	return nil
}

// attributeText is the value of an attribute as text: a string, a boolean or an integer. Null means absent.
func attributeText(value []byte) (text string, null bool, err error) {
	switch value[0] {
	case '"':
		text, err = unquote(value)
		return text, false, err
	case 't', 'f':
		return string(value), false, nil
	case 'n':
		return "", true, nil
	case '{', '[':
		return "", false, errors.New("it is not a string, a boolean or an integer")
	}
	if strings.ContainsAny(string(value), ".eE") {
		return "", false, errors.New("it is not an integer")
	}
	return string(value), false, nil
}

// parseBatch reads a JSON array of events.
func parseBatch(doc []byte) ([]*event, error) {
	var events []*event
	err := eachElement(doc, func(value []byte) error {
		if len(events) == maxBatchEvents {
			return errBatchTooLong
		}
		e, err := parseStructured(value)
		if err != nil {
			return fmt.Errorf("event %d of the batch: %w", len(events), err)
		}
		events = append(events, e)
		return nil
	})
	return events, err
}

var errBatchTooLong = fmt.Errorf("the batch holds more than %d events: send several", maxBatchEvents)
