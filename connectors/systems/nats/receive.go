package nats

import (
	"fmt"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

const (
	// eventPrefix of the headers that carry a CloudEvent, as its binding for NATS has it.
	eventPrefix = "ce-"
	// nameSubject of the extension that a message's subject becomes.
	nameSubject       = "natssubject"
	headerContentType = "Content-Type"
)

// receiver makes messages of what a stream holds.
type receiver struct {
	binding.Receiver
	format, stream string
}

// place of a message in its stream.
type place struct {
	sequence uint64
	stored   time.Time
}

// message of a delivery. An error says why the bus can never take it.
func (r *receiver) message(subject string, header client.Header, data []byte, at place) (*sdk.Message, error) {
	if len(data) > contract.MaxMessageSize {
		return nil, fmt.Errorf("the body has %d bytes, and the bus takes %d", len(data), contract.MaxMessageSize)
	}
	if err := sdk.CheckFormat(r.format, data); err != nil {
		return nil, err
	}
	m := &sdk.Message{Data: data, Time: at.stored.UTC()}
	attributes, others, err := split(header)
	if err != nil {
		return nil, err
	}
	event, err := r.Attributes(m, attributes)
	if err != nil {
		return nil, err
	}
	m.ContentType = first(others, headerContentType)
	if own := attributes["datacontenttype"]; own != "" {
		m.ContentType = own
	}
	if m.ContentType == "" || !binding.Printable(m.ContentType) {
		m.ContentType = binding.ContentType(r.format)
	}
	binding.Trace(m, first(others, contract.HeaderTraceParent), first(others, contract.HeaderTraceState))
	binding.Missing(m, nameSubject, subject)
	for _, name := range sorted(others) {
		if extension, ok := binding.Extension(name); ok && !reserved(name) {
			binding.Missing(m, extension, others[name])
		}
	}
	if event.ID != "" {
		binding.Identify(m, event, r.stream)
		return m, nil
	}
	// Its place in the stream, and the time with it: a stream that is made anew counts from one again.
	m.ID, m.Endpoint = strconv.FormatUint(at.sequence, 10)+"/"+strconv.FormatInt(at.stored.UnixNano(), 10), r.stream+"/sequence"
	return m, nil
}

// split headers into the attributes of an event and others. Of several values the first counts.
func split(header client.Header) (attributes, others map[string]string, err error) {
	others = make(map[string]string, len(header))
	for name, values := range header {
		if len(values) == 0 {
			continue
		}
		attribute, ok := cutPrefix(name, eventPrefix)
		if !ok {
			others[name] = values[0]
			continue
		}
		if !binding.Clean(values[0]) {
			return nil, nil, fmt.Errorf("header %.60q is no text of UTF-8 without control characters", name)
		}
		if attributes == nil {
			attributes = make(map[string]string, 8)
		}
		attributes[strings.ToLower(attribute)] = values[0]
	}
	return attributes, others, nil
}

func cutPrefix(name, prefix string) (string, bool) {
	if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
		return "", false
	}
	return name[len(prefix):], true
}

// reserved headers are the server's own, the bus's, and those that have a place already.
func reserved(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, "metip-") || lower == "content-type"
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// first value of a header, however it is written.
func first(headers map[string]string, name string) string {
	if v, ok := headers[name]; ok {
		return v
	}
	if v, ok := headers[textproto.CanonicalMIMEHeaderKey(name)]; ok {
		return v
	}
	return headers[strings.ToLower(name)]
}
