// Package binding is how CloudEvents travel in the headers of message brokers, in binary mode: what is common to their protocols.
package binding

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// MaxExtensions that a message brings along: the bus takes 32.
	MaxExtensions = 30
	maxIDBytes    = 512
)

// Names of extensions.
const (
	// Origin is the source of an event that another connector of a bus has made.
	Origin = "origin"
	// MessageType is a type that is not this connector's.
	MessageType = "messagetype"
)

// Event is a CloudEvent's identity; empty where a message is none.
type Event struct{ ID, Source string }

// Receiver is what a source's connector asks of events.
type Receiver struct {
	EventType string
	Marking   string
}

// Attributes of an event, by their names, are set in the message. All of specversion, id, source and type are there, or none of the four: then it is
// no event.
func (r Receiver) Attributes(m *sdk.Message, attributes map[string]string) (e Event, err error) {
	version := ""
	for name, value := range attributes {
		switch name {
		case "specversion":
			version = value
		case "id":
			e.ID = value
		case "source":
			e.Source = value
		case "type":
			m.Type = value
		case "subject":
			m.Subject = value
		case "time":
			if m.Time, err = time.Parse(time.RFC3339Nano, value); err != nil {
				return e, fmt.Errorf("header time: %.40q is no time as RFC 3339 has it", value)
			}
		case "partitionkey":
			m.PartitionKey = value
		case "marking":
			if value != r.Marking {
				return e, fmt.Errorf("header marking: %.40q, and this connector takes messages marked %q only", value, r.Marking)
			}
		case "datacontenttype": // the protocol has a header of its own for it
		default:
			Set(m, name, value)
		}
	}
	switch {
	case version == "" && e == Event{} && m.Type == "":
		return e, nil
	case version != contract.SpecVersion || e.ID == "" || e.Source == "" || m.Type == "":
		return e, errors.New("it has headers of CloudEvents, and not each of specversion 1.0, id, source and type")
	case len(e.ID) > maxIDBytes:
		return e, fmt.Errorf("the id of the event is longer than %d bytes", maxIDBytes)
	case !r.OwnType(m.Type): // what the event is to somebody else; Routes know what this connector may say
		Set(m, MessageType, m.Type)
		m.Type = ""
	}
	return e, nil
}

// Identify a message by its event: by source and id, within an endpoint. It may not say that it comes from another connector.
func Identify(m *sdk.Message, e Event, endpoint string) {
	m.ID = e.ID
	m.Endpoint = endpoint + "/event/" + Short(url.PathEscape(e.Source))
	if m.Source = e.Source; strings.HasPrefix(e.Source, "/metip/") {
		m.Source = ""
		Missing(m, Origin, e.Source)
	}
}

// Set an extension.
func Set(m *sdk.Message, name, value string) {
	if m.Headers == nil {
		m.Headers = make(map[string]string, 8)
	}
	m.Headers[name] = value
}

// Missing sets an extension that is not there, if the value can be one and there is room.
func Missing(m *sdk.Message, name, value string) {
	if _, ok := m.Headers[name]; !ok && value != "" && Clean(value) && len(m.Headers) < MaxExtensions {
		Set(m, name, value)
	}
}

// OwnType tells whether a message of the connector may have the type: its eventType, or one below it.
func (r Receiver) OwnType(t string) bool {
	if t == r.EventType {
		return true
	}
	rest, ok := strings.CutPrefix(t, r.EventType+".")
	if !ok || len(t) > 128 {
		return false
	}
	for part := range strings.SplitSeq(rest, ".") {
		if part == "" || strings.IndexFunc(part, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
		}) >= 0 {
			return false
		}
	}
	return true
}

// own are names of CloudEvents' attributes and of what the bus sets, which no other header may stand in for.
var own = map[string]bool{
	"id": true, "source": true, "type": true, "time": true, "subject": true, "specversion": true, "datacontenttype": true, "dataschema": true, "data": true,
	"database64": true, "marking": true, "partitionkey": true, "sequence": true, "expirytime": true, contract.HeaderTraceParent: true, contract.HeaderTraceState: true,
	Origin: true, MessageType: true,
}

// Extension is the name of the extension that a header becomes: its letters and digits, in lower case. A header whose name would be one of
// CloudEvents' own becomes none.
func Extension(header string) (string, bool) {
	name := make([]byte, 0, len(header))
	for i := 0; i < len(header); i++ {
		switch c := header[i]; {
		case c >= 'A' && c <= 'Z':
			name = append(name, c+'a'-'A')
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			name = append(name, c)
		case c == '-' || c == '_' || c == '.':
		default:
			return "", false
		}
	}
	text := string(name)
	return text, text != "" && len(text) <= 40 && !own[text]
}

// Clean tells whether a value can be a header's further on: UTF-8 without control characters.
func Clean(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

var traceParent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// Trace context of a message; one that is malformed is left out, as W3C Trace Context asks.
func Trace(m *sdk.Message, parent, state string) {
	if !traceParent.MatchString(parent) {
		return
	}
	Set(m, contract.HeaderTraceParent, parent)
	if state != "" && len(state) <= 512 && Clean(state) {
		Set(m, contract.HeaderTraceState, state)
	}
}

// Short is s, or its hash where it is long.
func Short(s string) string {
	if len(s) <= 200 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + hex.EncodeToString(sum[:])
}

// Printable tells whether a content type can be one.
func Printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// ContentType of bodies whose message says none.
func ContentType(format string) string {
	switch format {
	case sdk.FormatXML:
		return "application/xml"
	case sdk.FormatText:
		return "text/plain; charset=utf-8"
	case sdk.FormatBinary:
		return "application/octet-stream"
	default:
		return "application/json"
	}
}
