package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// maxCallHeaders of a request or an answer, in bytes: what contract.MaxHeaderSize leaves beside the broker's own.
const maxCallHeaders = contract.MaxHeaderSize - 1024

var (
	errHeadersTooLarge = fmt.Errorf("its headers take more than %d bytes", maxCallHeaders)
	errBodyTooLarge    = fmt.Errorf("its body has more than %d bytes, which is the most that the bus carries", contract.MaxMessageSize)
)

// wire builds a message's header and counts its size.
type wire struct {
	header nats.Header
	size   int
}

func (w *wire) set(name, value string) {
	if value == "" {
		return
	}
	w.size += len(name) + len(value) + 4
	w.header[name] = []string{value}
}

func (w *wire) http(header map[string][]string) {
	for name, values := range header {
		for _, v := range values {
			w.size += len(contract.HeaderCallHTTP) + len(name) + len(v) + 4
		}
		w.header[contract.HeaderCallHTTP+name] = values
	}
}

// attributes of the CloudEvent, and the trace context.
func (w *wire) attributes(m *sdk.Message) {
	w.set(contract.HeaderSpecVersion, contract.SpecVersion)
	w.set(contract.HeaderID, escapeHeader(m.ID))
	w.set(contract.HeaderSource, escapeHeader(m.Source))
	w.set(contract.HeaderType, escapeHeader(m.Type))
	w.set(contract.HeaderSubject, escapeHeader(m.Subject))
	if !m.Time.IsZero() {
		w.set(contract.HeaderTime, m.Time.UTC().Format(time.RFC3339Nano))
	}
	w.content(m)
	for name, value := range m.Headers {
		switch {
		case name == contract.HeaderTraceParent || name == contract.HeaderTraceState:
			if printable(value) {
				w.set(name, value)
			}
		case extensionName(name):
			w.set(contract.HeaderExtensionPrefix+name, escapeHeader(value))
		}
	}
}

func (w *wire) content(m *sdk.Message) {
	if printable(m.ContentType) {
		w.set(contract.HeaderContentType, m.ContentType)
	}
	w.set(contract.HeaderFormat, m.Format)
}

func (w *wire) check(data []byte) error {
	switch {
	case w.size > maxCallHeaders:
		return errHeadersTooLarge
	case len(data) > contract.MaxMessageSize:
		return errBodyTooLarge
	}
	return nil
}

// encodeRequest for the wire, but for what is left of its time.
func encodeRequest(subject string, r *sdk.Request) (*nats.Msg, error) {
	w := wire{header: make(nats.Header, 16+len(r.Header))}
	w.attributes(&r.Message)
	w.set(contract.HeaderCallMethod, r.Method)
	w.set(contract.HeaderCallPath, r.Path)
	w.set(contract.HeaderCallQuery, r.Query)
	w.http(r.Header)
	return &nats.Msg{Subject: subject, Header: w.header, Data: r.Data}, w.check(r.Data)
}

// decodeRequest of anybody who may call: no header is required, and none is believed to be well-formed. timeout is 0 when the caller sets
// none. The error may be told to the caller.
func decodeRequest(in *nats.Msg) (r *sdk.Request, timeout time.Duration, err error) {
	h := in.Header
	r = &sdk.Request{Method: first(h, contract.HeaderCallMethod), Path: first(h, contract.HeaderCallPath), Query: first(h, contract.HeaderCallQuery)}
	if r.Method == "" {
		if r.Method = http.MethodGet; len(in.Data) > 0 {
			r.Method = http.MethodPost
		}
	}
	if len(in.Data) > contract.MaxMessageSize {
		return nil, 0, errBodyTooLarge
	}
	decodeMessage(in, &r.Message)
	r.Header = httpHeaders(h)
	if s := first(h, contract.HeaderCallTimeout); s != "" {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil || ms < 0 {
			return nil, 0, fmt.Errorf("%s: %.40q is no number of milliseconds", contract.HeaderCallTimeout, s)
		}
		timeout = time.Duration(max(1, min(ms, int64(24*time.Hour/time.Millisecond)))) * time.Millisecond
	}
	return r, timeout, r.Check()
}

// decodeMessage takes what CloudEvents attributes there are.
func decodeMessage(in *nats.Msg, m *sdk.Message) {
	h := in.Header
	m.ID, m.Source, m.Type = unescapeHeader(first(h, contract.HeaderID)), unescapeHeader(first(h, contract.HeaderSource)), unescapeHeader(first(h, contract.HeaderType))
	m.Subject = unescapeHeader(first(h, contract.HeaderSubject))
	m.Time, _ = time.Parse(time.RFC3339Nano, first(h, contract.HeaderTime)) // an absent or malformed one is zero
	m.ContentType, m.Data = first(h, contract.HeaderContentType), in.Data
	switch m.Format = first(h, contract.HeaderFormat); m.Format {
	case sdk.FormatJSON, sdk.FormatXML, sdk.FormatText, sdk.FormatBinary:
	default:
		if m.Format = sdk.FormatOf(m.ContentType); m.ContentType == "" {
			m.Format = sdk.FormatJSON
		}
	}
	m.Headers = make(map[string]string, 4)
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		switch {
		case name == contract.HeaderTraceParent || name == contract.HeaderTraceState:
			m.Headers[name] = values[0]
		case strings.HasPrefix(name, contract.HeaderExtensionPrefix) && extensionName(name[len(contract.HeaderExtensionPrefix):]):
			m.Headers[name[len(contract.HeaderExtensionPrefix):]] = unescapeHeader(values[0])
		}
	}
}

// httpHeaders of a request or an answer, by lower-case name.
func httpHeaders(h nats.Header) map[string][]string {
	out := make(map[string][]string, len(h))
	for name, values := range h {
		if plain, is := strings.CutPrefix(name, contract.HeaderCallHTTP); is && plain != "" && len(values) > 0 {
			out[strings.ToLower(plain)] = values
		}
	}
	return out
}

// encodeAnswer for the wire. refused is empty but for a call that was not begun.
func encodeAnswer(reply string, a *sdk.Answer, refused string) (*nats.Msg, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	w := wire{header: make(nats.Header, 6+len(a.Header))}
	w.content(&a.Message)
	w.set(contract.HeaderCallStatus, strconv.Itoa(a.Status))
	w.set(contract.HeaderCallHop, a.Hop)
	w.set(contract.HeaderCallRefused, refused)
	w.http(a.Header)
	return &nats.Msg{Subject: reply, Header: w.header, Data: a.Data}, w.check(a.Data)
}

// decodeAnswer of a service, which may be any program that answers on the broker: one without a status is 200.
func decodeAnswer(in *nats.Msg) (a *sdk.Answer, refused string, err error) {
	a = &sdk.Answer{Status: http.StatusOK, Header: httpHeaders(in.Header), Hop: first(in.Header, contract.HeaderCallHop)}
	if s := first(in.Header, contract.HeaderCallStatus); s != "" {
		if a.Status, err = strconv.Atoi(s); err != nil {
			return nil, "", fmt.Errorf("its status is %.20q", s)
		}
	}
	if !printable(a.Hop) || len(a.Hop) > 128 {
		return nil, "", errors.New("its hop is none")
	}
	decodeMessage(in, &a.Message)
	return a, first(in.Header, contract.HeaderCallRefused), a.Check()
}

// problemJSON is RFC 9457, with the hop that made it.
type problemJSON struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hop    string `json:"hop"`
}

// hopProblem is the answer of a hop. The detail reaches whoever called: it names no address and no secret.
func hopProblem(status int, hop, format string, a ...any) *sdk.Answer {
	detail := format
	if len(a) > 0 {
		detail = fmt.Sprintf(format, a...)
	}
	out := &sdk.Answer{Status: status, Hop: hop, CacheFor: -1}
	out.ContentType, out.Format = "application/problem+json", sdk.FormatJSON
	title := http.StatusText(status)
	if title == "" {
		title = strconv.Itoa(status)
	}
	out.Data, _ = json.Marshal(problemJSON{"about:blank", title, status, detail, hop}) // strings and a number: it cannot fail
	if status == http.StatusServiceUnavailable {
		out.Header = map[string][]string{"retry-after": {"1"}}
	}
	return out
}
