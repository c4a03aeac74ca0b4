package http

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// operation makes one kind of request.
type operation struct {
	sink     *sink
	method   string
	fixed    *url.URL // when path holds no expression
	path     *steps.Template
	headers  []headerTemplate
	retryOn  []int
	rejectOn []int
	opaque   bool // no expression looks at the message
	// endpoint names the request in errors: method, url and path as written in the manifest, without query and without any
	// message's values.
	endpoint string
}

type headerTemplate struct {
	name  string
	value *steps.Template
}

// Operation compiles a request; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.request
	}
	var o requestOptions
	if len(raw) > 0 {
		if err := sdk.DecodeOptions(raw, &o); err != nil {
			return nil, err
		}
	}
	op := &operation{sink: s, method: o.Method, retryOn: o.RetryOn, rejectOn: o.RejectOn}
	switch op.method {
	case "":
		op.method = http.MethodPost
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return nil, fmt.Errorf("method %q is not one of POST, PUT, PATCH and DELETE", o.Method)
	}
	if err := op.compilePath(o.Path); err != nil {
		return nil, err
	}
	op.opaque = !strings.Contains(o.Path, "{")
	op.endpoint = op.method + " " + endpoint(s.base, o.Path)
	for name, text := range o.Headers {
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		op.opaque = op.opaque && !strings.Contains(text, "{")
		op.headers = append(op.headers, headerTemplate{http.CanonicalHeaderKey(name), value})
	}
	return op, nil
}

func (o *operation) compilePath(text string) error {
	if text != "" && text[0] != '/' && text[0] != '?' {
		return errors.New("path must begin with / or ?")
	}
	var err error
	if o.path, err = steps.CompileTemplate(text); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if !strings.ContainsAny(text, "{}") {
		o.fixed, err = o.parse(text)
	}
	return err
}

// endpoint is the url and the path up to its query, expressions as they are written.
func endpoint(base *url.URL, path string) string {
	depth := 0
	for i, c := range path {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		case '?':
			if depth == 0 {
				return prefix(base) + path[:i]
			}
		}
	}
	return prefix(base) + path
}

// prefix is the url that paths are added to: https://host/api of both https://host/api and https://host/api/.
func prefix(base *url.URL) string { return strings.TrimSuffix(base.String(), "/") }

// emptyValue stands for an inserted value that is empty, until it is known whether it stands in the path or in the query.
const emptyValue = "\x00"

// escapeURL makes a value that means itself wherever in path or query it stands: all but unreserved characters are encoded.
func escapeURL(value string) string {
	if value == "" {
		return emptyValue
	}
	n := 0
	for i := 0; i < len(value); i++ {
		if !unreserved(value[i]) {
			n++
		}
	}
	if n == 0 {
		return value
	}
	var b strings.Builder
	b.Grow(len(value) + 2*n)
	for i := 0; i < len(value); i++ {
		if c := value[i]; unreserved(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// url of a message's request.
func (o *operation) url(m *sdk.Message) (*url.URL, error) {
	if o.fixed != nil {
		return o.fixed, nil
	}
	text, err := o.path.Expand(m, escapeURL)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	return o.parse(text)
}

// parse adds an expanded path to the url. A value that would make the request go elsewhere than the template says is refused:
// an empty one (the list instead of the record) and dot segments.
func (o *operation) parse(text string) (*url.URL, error) {
	path, query, hasQuery := strings.Cut(text, "?")
	if strings.Contains(path, emptyValue) {
		return nil, errors.New("path: a value that is inserted is empty")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return nil, fmt.Errorf("path: it has the segment %q, which would lead elsewhere", segment)
		}
	}
	base := prefix(o.sink.base)
	if path == "" {
		base = o.sink.base.String()
	}
	full := base + path
	if hasQuery {
		full += "?" + strings.ReplaceAll(query, emptyValue, "")
	}
	u, err := url.Parse(full)
	if err != nil {
		return nil, errors.New("path: it makes no valid URL")
	}
	if u.Fragment != "" || u.Host != o.sink.base.Host {
		return nil, errors.New("path: write a plain # as %23")
	}
	return u, nil
}

// MaxBatch is one request.
func (o *operation) MaxBatch() int { return 1 }

// Opaque: only expressions look into bodies.
func (o *operation) Opaque() bool { return o.opaque }

// Write makes a request of each message, in order.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	for i, d := range batch {
		results[i] = o.deliver(ctx, d)
	}
	return results
}

func (o *operation) deliver(ctx context.Context, d *sdk.Delivery) error {
	credentials := o.sink.credentials()
	if credentials.err != nil {
		return credentials.err
	}
	transport, err := o.sink.client()
	if err != nil {
		return err
	}
	var try attempt
	request, body, err := o.build(try.watch(ctx), d, credentials)
	if err != nil {
		return o.unbuilt(err)
	}
	response, err := roundTrip(transport, request)
	if failed := body.failure(); failed != nil {
		if err == nil {
			_ = response.Body.Close()
		}
		return fmt.Errorf("%s: %w", o.endpoint, failed) // whatever was answered to a part of it
	}
	if err != nil {
		return o.broken(ctx, err, try.connected.Load())
	}
	defer func() { _ = response.Body.Close() }()
	// Whether the whole answer arrives does not matter: the status says whether the system has the message.
	return o.judge(response, readAnswer(response), credentials)
}

// attempt watches whether a request got a connection.
type attempt struct {
	connected atomic.Bool
	trace     httptrace.ClientTrace
}

func (a *attempt) watch(ctx context.Context) context.Context {
	a.trace.GotConn = func(httptrace.GotConnInfo) { a.connected.Store(true) }
	return httptrace.WithClientTrace(ctx, &a.trace)
}

// bareRequest is what requests have in common.
var bareRequest = &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}

// headerRoom is how many headers most requests have, at most.
const headerRoom = 14

// singleValues makes the values of headers that have one each, from few pieces of memory.
type singleValues []string

func (s *singleValues) of(value string) []string {
	if len(*s) == cap(*s) {
		*s = make([]string, 0, headerRoom)
	}
	n := len(*s)
	*s = append(*s, value)
	return (*s)[n : n+1 : n+1]
}

// build the request; body is of a message with a claim. An error is the message's own, or has a class.
func (o *operation) build(ctx context.Context, d *sdk.Delivery, credentials *sinkCredentials) (_ *http.Request, body *largeBody, err error) {
	m := d.Message
	u, err := o.url(m)
	if err != nil {
		return nil, nil, err
	}
	var values singleValues
	header := make(http.Header, headerRoom)
	setEventHeaders(header, &values, m)
	data := m.Data
	if o.method == http.MethodDelete {
		data = nil
	} else if m.ContentType != "" {
		header["Content-Type"] = values.of(m.ContentType)
	}
	for i := range o.headers {
		h := &o.headers[i]
		value, err := h.value.Expand(m, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("header %s: %w", h.name, err)
		}
		if err := checkAttribute(value); err != nil {
			return nil, nil, fmt.Errorf("header %s: %w", h.name, err)
		}
		header[h.name] = values.of(value)
	}
	for _, value := range header["Content-Type"] {
		if checkAttribute(value) != nil {
			return nil, nil, errors.New("the content type holds control characters")
		}
	}
	header["User-Agent"] = userAgent
	header["Idempotency-Key"] = values.of(d.Durable + "/" + encodeAttribute(d.MessageID))
	if credentials.authorization != "" {
		header["Authorization"] = values.of(credentials.authorization)
	}
	if m.Claim != nil && o.method != http.MethodDelete {
		body = &largeBody{ctx: ctx, claim: m.Claim}
	}
	if credentials.key != nil {
		name := o.sink.rt.Config.Auth.Header
		if name == "" {
			name = defaultSignatureHeader
		}
		signed := signature(credentials.key, data)
		if body != nil {
			if signed, err = body.signature(credentials.key); err != nil {
				return nil, nil, err
			}
		}
		header[http.CanonicalHeaderKey(name)] = []string{"sha256=" + hex.EncodeToString(signed)}
	}
	request := bareRequest.WithContext(ctx)
	request.Method, request.URL, request.Host, request.Header = o.method, u, u.Host, header
	switch {
	case body != nil:
		body.give(request)
	case len(data) > 0:
		request.ContentLength = int64(len(data))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		request.Body, _ = request.GetBody()
	}
	return request, body, nil
}

var userAgent = []string{"metip"}

// setEventHeaders tells the system what the bus knows of the message: a CloudEvent in binary mode, and the trace context.
func setEventHeaders(header http.Header, values *singleValues, m *sdk.Message) {
	header["Ce-Specversion"] = specVersion
	header["Ce-Id"] = values.of(encodeAttribute(m.ID))
	header["Ce-Source"] = values.of(encodeAttribute(m.Source))
	header["Ce-Type"] = values.of(encodeAttribute(m.Type))
	if !m.Time.IsZero() {
		header["Ce-Time"] = values.of(m.Time.UTC().Format(time.RFC3339Nano))
	}
	if m.Subject != "" {
		header["Ce-Subject"] = values.of(encodeAttribute(m.Subject))
	}
	if m.History != "" {
		header["Metip-History"] = values.of(m.History)
	}
	for name, value := range m.Headers {
		switch {
		case name == contract.HeaderTraceParent:
			if checkAttribute(value) == nil {
				header["Traceparent"] = values.of(value)
			}
		case name == contract.HeaderTraceState:
			if checkAttribute(value) == nil {
				header["Tracestate"] = values.of(value)
			}
		case attributeName(name):
			header[http.CanonicalHeaderKey("ce-"+name)] = values.of(encodeAttribute(value))
		}
	}
}

var specVersion = []string{contract.SpecVersion}
