package soap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	systemhttp "github.com/metip/metip/connectors/systems/http"
	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

// endpoint is a system that is called.
type endpoint struct {
	sdk.Service
	rt       sdk.Runtime
	url      string
	security string
}

func newEndpoint(rt sdk.Runtime, o endpointOptions, security string) (*endpoint, error) {
	if err := checkSecurity(security, rt.Config.Auth); err != nil {
		return nil, err
	}
	e := &endpoint{rt: rt, url: o.URL, security: security}
	if secured(security) {
		rt.Config = withoutAuth(rt.Config, contract.AuthNone)
	}
	options, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	e.Service, err = systemhttp.NewService(rt, options)
	return e, err
}

// Check implements sdk.Service and sdk.Sink.
func (e *endpoint) Check(ctx context.Context) error {
	if secured(e.security) {
		if _, err := readAccount(e.rt.Secrets, e.rt.Config.Auth); err != nil {
			return err
		}
	}
	return e.Service.Check(ctx)
}

// errBody says that a message makes no envelope.
type errBody struct{ error }

// post a message's body in an envelope, and return what came back.
func (e *endpoint) post(ctx context.Context, f *form, m *sdk.Message, id string, header map[string][]string, reserve func(context.Context, int) error) (*sdk.Answer, error) {
	action, err := f.action.Expand(m, nil)
	if err != nil {
		return nil, errBody{fmt.Errorf("action: %w", err)}
	}
	if action != "" && (!usable(action) || strings.ContainsAny(action, `"\`)) {
		return nil, errBody{errors.New("action: it holds quotes or control characters, or is too long")}
	}
	text, charset, err := e.envelope(f, m, action, id)
	if err != nil {
		return nil, err
	}
	r := &sdk.Request{Message: sdk.Message{ID: m.ID, Data: text, Headers: m.Headers}, Method: http.MethodPost, Header: map[string][]string{}, Reserve: reserve}
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header["accept"] = []string{f.version.mediaType()}
	r.ContentType = f.version.mediaType() + charset
	switch {
	case f.version == version11:
		r.Header["soapaction"] = []string{`"` + action + `"`}
	case action != "":
		r.ContentType += `; action="` + action + `"`
	}
	return e.Service.Call(ctx, r)
}

// envelope of a message, and the parameter of its content type that says in which character set it is.
func (e *endpoint) envelope(f *form, m *sdk.Message, action, id string) (text []byte, charset string, err error) {
	if f.whole {
		charset, err = f.check(m)
		return m.Data, charset, err
	}
	payload, err := f.payload(m)
	if err != nil {
		return nil, "", errBody{err}
	}
	headers, err := e.headers(f, action, id)
	if err != nil {
		return nil, "", err
	}
	return build(f.version, headers, payload), "; charset=utf-8", nil
}

// check a message that is an envelope itself. It is sent byte for byte, as a signature in it asks for: its character set is what its content type
// says, or else what it says itself.
func (f *form) check(m *sdk.Message) (charset string, err error) {
	if m.Format != sdk.FormatXML {
		return "", errBody{fmt.Errorf("the body is %s, and an envelope is wanted", m.Format)}
	}
	_, parameters, _ := mime.ParseMediaType(m.ContentType)
	e, err := parse(m.Data, parameters["charset"])
	switch {
	case err != nil:
		return "", errBody{err}
	case e.version != f.version:
		return "", errBody{fmt.Errorf("the envelope is of SOAP %s, and the call of %s: set version", e.version, f.version)}
	case parameters["charset"] == "":
		return "", nil
	}
	return strings.TrimPrefix(mime.FormatMediaType("text/xml", map[string]string{"charset": parameters["charset"]}), "text/xml"), nil
}

// payload of an envelope.
func (f *form) payload(m *sdk.Message) ([]byte, error) {
	switch {
	case len(m.Data) == 0:
		return nil, errors.New("the body is empty: an element is wanted")
	case m.Format == sdk.FormatJSON:
		return f.toXML(m.Data)
	case m.Format == sdk.FormatXML:
		_, parameters, _ := mime.ParseMediaType(m.ContentType)
		return codec.RecodeXML(m.Data, parameters["charset"], "")
	default:
		return nil, fmt.Errorf("the body is %s, and JSON or XML is wanted", m.Format)
	}
}

// headers of an envelope: who we are, and what WS-Addressing asks for.
func (e *endpoint) headers(f *form, action, id string) ([]byte, error) {
	var out []byte
	if secured(e.security) {
		own, err := readAccount(e.rt.Secrets, e.rt.Config.Auth)
		if err != nil {
			return nil, err
		}
		out = append(out, own.token(e.security == securityDigest, time.Now())...)
	}
	if !f.addressing {
		return out, nil
	}
	for _, h := range [][2]string{{"Action", action}, {"MessageID", "urn:uuid:" + id}, {"To", f.to}} {
		out = append(out, `<wsa:`+h[0]+` xmlns:wsa="`+nsAddress+`">`...)
		out = append(xmlns.AppendText(out, h[1]), `</wsa:`+h[0]+`>`...)
	}
	return out, nil
}

// open the envelope of an answer; nil where there is none and none is needed. The error says what is wrong with it.
func open(a *sdk.Answer) (*envelope, error) {
	if len(a.Data) == 0 {
		return nil, nil
	}
	media, parameters, err := mime.ParseMediaType(a.ContentType)
	if err == nil && strings.HasPrefix(media, "multipart/") {
		return nil, errors.New("it has attachments (MTOM, SwA), which are not taken")
	}
	return parse(a.Data, parameters["charset"])
}

// redact what a system repeats of our credentials.
func (e *endpoint) redact(text string) string {
	if !secured(e.security) {
		return text
	}
	own, err := readAccount(e.rt.Secrets, e.rt.Config.Auth)
	if err != nil {
		return text
	}
	return strings.ReplaceAll(text, own.password, "***")
}

// sink calls a system with each message.
type sink struct {
	*endpoint
	call json.RawMessage
}

// NewSink makes a sink of the JSON of the API's SOAPSink.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	e, err := newEndpoint(rt, endpointOptions{URL: o.URL}, o.Security)
	if err != nil {
		return nil, err
	}
	return &sink{e, o.Call}, nil
}

// Operation implements sdk.Sink.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 || string(raw) == "null" {
		raw = s.call
	}
	f, err := newForm(raw, s.url)
	if err != nil {
		return nil, err
	}
	if f.whole && secured(s.security) {
		return nil, fmt.Errorf("content %s: such an envelope has headers of its own; leave security %s of the Connector out", contentEnvelope, s.security)
	}
	return &operation{s, f}, nil
}

type operation struct {
	*sink
	form *form
}

// MaxBatch is one call.
func (o *operation) MaxBatch() int { return 1 }

// Write implements sdk.Operation.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	for i, d := range batch {
		results[i] = o.deliver(ctx, d)
	}
	return results
}

func (o *operation) deliver(ctx context.Context, d *sdk.Delivery) error {
	key := d.Durable + "/" + d.MessageID
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte(key)).String()
	a, err := o.post(ctx, o.form, d.Message, id, map[string][]string{"idempotency-key": {id}}, nil)
	var body errBody
	var call *sdk.CallError
	switch {
	case err == nil:
		return o.judge(a)
	case errors.As(err, &body):
		return sdk.Permanent(err)
	case errors.As(err, &call):
		return fmt.Errorf("POST %s: %w", o.url, err)
	}
	return err
}

// judge says what an answer means for the message.
func (o *operation) judge(a *sdk.Answer) error {
	e, err := open(a)
	switch {
	case err == nil && e != nil && e.fault != nil:
		return o.blame(e.fault, a.Status)
	case a.Status/100 == 2 && err == nil:
		return nil
	}
	text := fmt.Sprintf("POST %s: %d %s", o.url, a.Status, http.StatusText(a.Status))
	if err != nil {
		text += ", and the answer is no envelope: " + o.redact(oneline.Excerpt(err.Error(), 160)+": "+oneline.Excerpt(string(a.Data), 160))
	}
	failed := errors.New(text)
	switch {
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, failed)
	case a.Status == http.StatusBadGateway || a.Status == http.StatusServiceUnavailable || a.Status == http.StatusGatewayTimeout:
		return sdk.Unavailable(contract.ReasonConnectionFailed, failed)
	case a.Status/100 == 2, a.Status >= 500, a.Status == http.StatusRequestTimeout, a.Status == http.StatusTooManyRequests, a.Status == http.StatusTooEarly:
		return failed
	default:
		return sdk.Permanent(failed)
	}
}

func (o *operation) blame(f *fault, status int) error {
	err := fmt.Errorf("POST %s: %s", o.url, o.redact(f.Error()))
	switch {
	case f.is(o.form.rejectOn):
		return sdk.Permanent(err)
	case f.is(o.form.retryOn):
		return err
	case f.blame() == blameCredentials:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, err)
	case status == http.StatusServiceUnavailable:
		return sdk.Unavailable(contract.ReasonSystemError, err)
	case f.blame() == blameSender:
		return sdk.Permanent(err)
	default:
		return err
	}
}
