package engine

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/telemetry"
)

// Limits of single attributes, in bytes. All headers together are bounded by contract.MaxHeaderSize.
const (
	maxEventType  = 128
	maxExtensions = 32
	maxMessageID  = 1024
	// maxAttributes are all headers that a source may make: what a dead letter or a Replay adds has to fit too.
	maxAttributes = contract.MaxHeaderSize - 8<<10
)

// envelope makes bus messages of a source's messages: CloudEvents in NATS binary mode.
type envelope struct {
	who                                     contract.Connector
	uid, source, eventType, format, marking string
	// subjects of the connector's own event type, by slot; prefix is theirs up to the slot.
	subjects [contract.Slots]string
	prefix   string
	// tracer is nil where nothing is traced.
	tracer *telemetry.Tracer
	// history: messages carry where they have been.
	history bool
	// key of a message, where it is not what the system says; keyless is told of a message that has none.
	key     *steps.Key
	keyless func()
}

func newEnvelope(c *contract.Config) *envelope {
	e := &envelope{
		who: c.Connector, history: c.Source.History, uid: c.Connector.UID, source: contract.SourceURI(c.Connector.Namespace, c.Connector.Name), eventType: c.Source.EventType,
		format: c.Source.Format, marking: escapeHeader(c.Connector.Marking),
	}
	if e.format == "" {
		e.format = sdk.FormatJSON
	}
	for slot := range e.subjects {
		e.subjects[slot] = contract.EventSubject(c.Connector.Namespace, c.Connector.Integration, c.Connector.Name, slot, e.eventType)
	}
	e.prefix = strings.TrimSuffix(e.subjects[0], "0."+e.eventType)
	return e
}

// encoded is a message as the broker gets it. It is made to be used again: the map and the values behind it stay.
type encoded struct {
	nats.Msg
	values [24]string
	used   int
	size   int
	span   telemetry.Span
}

func (o *encoded) reset() {
	if o.Header == nil {
		o.Header = make(nats.Header, 20)
	}
	clear(o.Header)
	clear(o.values[:])
	o.span = telemetry.Span{}
	o.used, o.size, o.Data, o.Subject, o.Reply = 0, 0, nil, "", ""
}

func (o *encoded) set(name, value string) {
	o.size += len(name) + len(value) + 4
	if o.used == len(o.values) {
		o.Header[name] = []string{value}
		return
	}
	o.values[o.used] = value
	o.Header[name] = o.values[o.used : o.used+1 : o.used+1]
	o.used++
}

// encode fills o in. An error says what is wrong with the message.
func (e *envelope) encode(o *encoded, m *sdk.Message, now time.Time) error {
	o.reset()
	if err := e.check(m); err != nil {
		return err
	}
	eventType := m.Type
	if eventType == "" {
		eventType = e.eventType
	}
	key := m.PartitionKey
	if e.key != nil {
		key = e.computeKey(m)
	} else if key == "" {
		key = m.Headers["partitionkey"]
	}
	if key == "" {
		key = m.ID
	}
	slot := contract.Slot(key)
	o.Subject = e.subjects[slot]
	if eventType != e.eventType {
		o.Subject = e.prefix + strconv.Itoa(slot) + "." + eventType
	}
	o.Data = m.Data

	accepted := now.UTC().Format(time.RFC3339Nano)
	o.set(headerMsgID, escapeHeader(contract.MessageID(e.uid, m.Endpoint, m.ID)))
	o.set(contract.HeaderSpecVersion, contract.SpecVersion)
	o.set(contract.HeaderID, escapeHeader(m.ID))
	o.set(contract.HeaderType, eventType)
	o.set(contract.HeaderAccepted, accepted)
	o.set(contract.HeaderFormat, e.format)
	if m.Source == "" {
		o.set(contract.HeaderSource, e.source)
	} else {
		o.set(contract.HeaderSource, escapeHeader(m.Source))
	}
	if m.Time.IsZero() {
		o.set(contract.HeaderTime, accepted)
	} else {
		o.set(contract.HeaderTime, m.Time.UTC().Format(time.RFC3339Nano))
	}
	if m.Subject != "" {
		o.set(contract.HeaderSubject, escapeHeader(m.Subject))
	}
	if m.ContentType != "" {
		o.set(contract.HeaderContentType, m.ContentType)
	}
	if m.PartitionKey != "" {
		o.set(contract.HeaderPartitionKey, escapeHeader(m.PartitionKey))
	}
	if e.marking != "" {
		o.set(contract.HeaderMarking, e.marking)
	}
	if e.history {
		o.set(contract.HeaderHistory, contract.AppendHistory("", e.who.Name, now))
	}
	e.extensions(o, m)
	if o.size > maxAttributes {
		return fmt.Errorf("its attributes take %d bytes, and %d are allowed", o.size, maxAttributes)
	}
	o.size += len(o.Data)
	return nil
}

// computeKey of a message, and set it; a message for which there is none has none at all.
func (e *envelope) computeKey(m *sdk.Message) string {
	if m.Type == "" { // what expressions see is what Routes see
		m.Type = e.eventType
	}
	m.Format = e.format
	key, ok := e.key.Of(m)
	m.SetData(m.Data) // the decoded body is not kept
	if m.PartitionKey = key; !ok {
		e.keyless()
	}
	return key
}

func (e *envelope) extensions(o *encoded, m *sdk.Message) {
	trace := ""
	for name, value := range m.Headers {
		switch {
		case name == contract.HeaderTraceParent:
			trace = value
		case name == contract.HeaderTraceState:
			o.set(name, value)
		case name == "marking" && e.marking != "", name == "partitionkey" && (m.PartitionKey != "" || e.key != nil), isBroker(name):
		default:
			o.set(contract.HeaderExtensionPrefix+name, escapeHeader(value))
		}
	}
	switch {
	case e.tracer != nil:
		o.span = e.tracer.Publish(trace, m.Headers[contract.HeaderTraceState], o.Subject, m.ID)
		trace = o.span.TraceParent()
	case !validTraceParent(trace):
		trace = newTraceParent()
	}
	o.set(contract.HeaderTraceParent, trace)
}

// check what a source may not say.
func (e *envelope) check(m *sdk.Message) error {
	switch {
	case m.ID == "":
		return errors.New("it has no id")
	case len(m.ID)+len(m.Endpoint)+len(e.uid) > maxMessageID:
		return fmt.Errorf("its id is longer than %d bytes", maxMessageID-len(e.uid)-len(m.Endpoint))
	case len(m.Data) > contract.MaxMessageSize:
		return fmt.Errorf("its body has %d bytes, and %d are allowed", len(m.Data), contract.MaxMessageSize)
	case !printable(m.ContentType):
		return errors.New("its content type holds characters that are not printable ASCII")
	case len(m.Headers) > maxExtensions:
		return fmt.Errorf("it has %d extension attributes, and %d are allowed", len(m.Headers), maxExtensions)
	case strings.HasPrefix(m.Source, "/metip/") && m.Source != e.source:
		return fmt.Errorf("its source %.100q is another connector's", m.Source)
	}
	if m.Type != "" && m.Type != e.eventType {
		if err := e.checkType(m.Type); err != nil {
			return err
		}
	}
	for name, value := range m.Headers {
		switch {
		case name == contract.HeaderTraceParent || isBroker(name):
		case name == contract.ExtensionExpiryTime:
			if _, err := parseExpiryTime(value); err != nil {
				return err
			}
		case name == contract.HeaderTraceState:
			if !printable(value) {
				return errors.New("its tracestate holds characters that are not printable ASCII")
			}
		case !extensionName(name):
			return fmt.Errorf("the extension attribute %.40q: names are 1 to 40 of a-z and 0-9, and not those of CloudEvents' own attributes", name)
		}
	}
	return nil
}

func (e *envelope) checkType(t string) error {
	if !strings.HasPrefix(t, e.eventType) || t[len(e.eventType)] != '.' {
		return fmt.Errorf("its type %.100q is neither this connector's %q nor begins with it and a dot", t, e.eventType)
	}
	if len(t) > maxEventType {
		return fmt.Errorf("its type is longer than %d bytes", maxEventType)
	}
	last := byte('.')
	for i := 0; i < len(t); i++ {
		c := t[i]
		if c == '.' && last == '.' || c != '.' && c != '_' && c != '-' && !isAlphanumeric(c) {
			return fmt.Errorf("its type %.100q holds more than letters, digits, '_', '-' and single dots between them", t)
		}
		last = c
	}
	if last == '.' {
		return fmt.Errorf("its type %.100q ends with a dot", t)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isBroker tells the broker's own headers, which a message may not bring along: they are dropped.
func isBroker(name string) bool {
	return len(name) >= 5 && strings.EqualFold(name[:5], "nats-")
}

func extensionName(name string) bool {
	switch name {
	case "id", "source", "type", "specversion", "time", "subject", "datacontenttype", "data":
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 40
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789ABCDEF"

// escapeHeader percent-encodes what a header cannot hold, as CloudEvents' NATS binding says: everything but printable ASCII, and the
// space, the double quote and the percent sign.
func escapeHeader(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] > ' ' && s[i] <= '~' && s[i] != '"' && s[i] != '%'
	}
	if plain {
		return s
	}
	out := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' && c <= '~' && c != '"' && c != '%' {
			out = append(out, c)
		} else {
			out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(out)
}

// unescapeHeader is the inverse of escapeHeader. A percent sign that begins no code stays.
func unescapeHeader(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				out = append(out, b[0])
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// validTraceParent of W3C trace context, version 00.
func validTraceParent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i := 3; i < len(s); i++ {
		if i != 35 && i != 52 && (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

// newTraceParent begins a trace for a message that came without one. It is not sampled, for nobody has recorded it so far; and the broker
// takes a map of all headers, 3 us a message, of every message whose trace is sampled.
func newTraceParent() string {
	var id [24]byte
	binary.BigEndian.PutUint64(id[0:], rand.Uint64()|1)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	binary.BigEndian.PutUint64(id[16:], rand.Uint64()|1)
	var out [55]byte
	copy(out[:], "00-")
	hex.Encode(out[3:], id[:16])
	out[35] = '-'
	hex.Encode(out[36:], id[16:])
	copy(out[52:], "-00")
	return string(out[:])
}

// first value of a header, without a copy of its name.
func first(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// decode makes a message of what came from the broker, and checks that it is what its subject says: evt.<namespace>.<integration>.
// <connector>.<slot>.<type...>.
func decode(in *nats.Msg, m *sdk.Message) error {
	subject := originalSubject(in)
	parts := strings.SplitN(subject, ".", 6)
	if len(parts) != 6 || parts[0] != "evt" {
		return fmt.Errorf("its subject %.200q is no event's", subject)
	}
	h := in.Header
	m.ID = unescapeHeader(first(h, contract.HeaderID))
	m.Type = first(h, contract.HeaderType)
	m.Source = unescapeHeader(first(h, contract.HeaderSource))
	if m.ID == "" || m.Source == "" || first(h, contract.HeaderSpecVersion) != contract.SpecVersion {
		return errors.New("it is no CloudEvent: ce-id, ce-source or ce-specversion 1.0 is missing")
	}
	if m.Type != parts[5] {
		return fmt.Errorf("its type %.100q is not the one of its subject %.200q", m.Type, subject)
	}
	if strings.HasPrefix(m.Source, "/metip/") && m.Source != contract.SourceURI(parts[1], parts[3]) &&
		(parts[3] != contract.RelayToken || !strings.HasPrefix(m.Source, contract.RelaySourcePrefix(parts[1], parts[2]))) {
		return fmt.Errorf("its source %.100q is not the one of its subject %.200q", m.Source, subject)
	}
	if s := first(h, contract.HeaderTime); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return fmt.Errorf("its time: %w", err)
		}
		m.Time = t
	}
	m.Subject = unescapeHeader(first(h, contract.HeaderSubject))
	m.ContentType = first(h, contract.HeaderContentType)
	m.PartitionKey = unescapeHeader(first(h, contract.HeaderPartitionKey))
	m.Format = first(h, contract.HeaderFormat)
	m.Accepted = first(h, contract.HeaderAccepted)
	m.History = first(h, contract.HeaderHistory)
	if hops := first(h, contract.HeaderHops); hops != "" {
		n, err := strconv.Atoi(hops)
		if err != nil || n < 0 {
			return fmt.Errorf("its count of hops %.20q is no number", hops)
		}
		m.Hops = n
	}
	m.Data = in.Data
	m.Headers = make(map[string]string, 4)
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		switch name {
		case contract.HeaderTraceParent, contract.HeaderTraceState:
			m.Headers[name] = values[0]
		case contract.HeaderSpecVersion, contract.HeaderID, contract.HeaderType, contract.HeaderSource, contract.HeaderTime, contract.HeaderSubject:
		default:
			if strings.HasPrefix(name, contract.HeaderExtensionPrefix) {
				m.Headers[name[len(contract.HeaderExtensionPrefix):]] = unescapeHeader(values[0])
			}
		}
	}
	return nil
}
