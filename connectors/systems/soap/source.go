package soap

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	systemhttp "github.com/metip/metip/connectors/systems/http"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

const (
	// Extensions of a message that say what was called.
	nameAction    = "soapaction"
	nameOperation = "soapoperation"
	// exchangeRequestReply is the exchange whose requests a service answers.
	exchangeRequestReply = "RequestReply"
	// maxAttribute of what is carried in them.
	maxAttribute = 512
)

// source is a listener whose dialect is SOAP.
type source struct {
	inner sdk.Source
	gate  *gate
}

// NewSource makes a source of the JSON of the API's SOAPSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o, err := decodeSource(raw)
	if err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	if f := rt.Config.Source.Format; f != sdk.FormatJSON && f != sdk.FormatXML {
		return nil, fmt.Errorf("format %q is neither JSON nor XML", f)
	}
	if err := checkSecurity(o.Security, rt.Config.Auth); err != nil {
		return nil, err
	}
	if o.Path == "" {
		o.Path = "/"
	}
	d := &dialect{json: rt.Config.Source.Format == sdk.FormatJSON, path: o.Path, response: []byte(o.Response), answers: o.Response != "" || o.Exchange == exchangeRequestReply}
	if d.mapping, err = newMapping(o.mappingOptions); err != nil {
		return nil, err
	}
	if o.WSDL != nil {
		d.wsdl = locate([]byte(o.WSDL.Inline), o.WSDL.Address)
	}
	if secured(o.Security) {
		d.gate = &gate{rt: rt, digestOnly: o.Security == securityDigest}
		rt.Config = withoutAuth(rt.Config, contract.AuthAnonymous)
	}
	options, err := json.Marshal(httpSourceOptions{o.Path, o.Exchange, o.MaxBodySize})
	if err != nil {
		return nil, err
	}
	inner, err := systemhttp.NewDialectSource(rt, options, d)
	if err != nil {
		return nil, err
	}
	return &source{inner, d.gate}, nil
}

// withoutAuth is for package http, where the credentials are not HTTP's.
func withoutAuth(c *contract.Config, kind contract.AuthKind) *contract.Config {
	other := *c
	other.Auth = contract.Auth{Kind: kind}
	return &other
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	if s.gate != nil {
		state = gated{state, s.gate}
	}
	return s.inner.Run(ctx, bus, state)
}

// gated reports besides whether there are credentials to check by.
type gated struct {
	sdk.Reporter
	gate *gate
}

func (g gated) System(err error) {
	if err == nil {
		err = g.gate.credentials()
	}
	g.Reporter.System(err)
}

var location = regexp.MustCompile(`(<(?:[A-Za-z_][\w.-]*:)?address\s[^<>]*?\blocation\s*=\s*)("[^"]*"|'[^']*')`)

// locate makes a WSDL say where the listener is, if that is known.
func locate(wsdl []byte, address string) []byte {
	if address == "" {
		return wsdl
	}
	var escaped bytes.Buffer
	_ = xml.EscapeText(&escaped, []byte(address)) // a buffer takes everything
	return location.ReplaceAllFunc(wsdl, func(found []byte) []byte {
		return append(append(append(append([]byte(nil), location.FindSubmatch(found)[1]...), '"'), escaped.Bytes()...), '"')
	})
}

// dialect of SOAP.
type dialect struct {
	*mapping
	json     bool
	path     string
	wsdl     []byte
	response []byte
	// answers: a caller gets more than that its request is taken.
	answers bool
	gate    *gate
}

// Describe serves the WSDL at ?wsdl.
func (d *dialect) Describe(w http.ResponseWriter, r *http.Request) bool {
	if d.wsdl == nil || !strings.EqualFold(r.URL.RawQuery, "wsdl") {
		return false
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	if strings.HasPrefix(string(d.wsdl), "<?xml") { // it says its character set itself
		w.Header().Set("Content-Type", "text/xml")
	}
	_, _ = w.Write(d.wsdl)
	return true
}

// Refuse implements Dialect.
func (d *dialect) Refuse(w http.ResponseWriter, r *http.Request, status int, detail string) {
	v := version11
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && media == version12.mediaType() {
		v = version12
	}
	writeFault(w, v, status, faultOf(status, detail), nil)
}

// faultOf an HTTP status.
func faultOf(status int, detail string) *fault {
	code := "Server"
	if status < http.StatusInternalServerError {
		code = "Client"
	}
	return &fault{code: code, reason: detail}
}

// writeFault with a status that says the same to HTTP, where the binding leaves a choice.
func writeFault(w http.ResponseWriter, v version, status int, f *fault, headers []byte) {
	switch {
	case status == http.StatusBadRequest || status == http.StatusUnprocessableEntity:
		if status = http.StatusInternalServerError; v == version12 {
			status = http.StatusBadRequest
		}
	case status < 400:
		status = http.StatusInternalServerError
	}
	writeEnvelope(w, v, status, headers, f.render(v))
}

func writeEnvelope(w http.ResponseWriter, v version, status int, headers, payload []byte) {
	body := build(v, headers, payload)
	w.Header().Set("Content-Type", v.mediaType()+"; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that is gone asks again
}

// Open implements Dialect.
func (d *dialect) Open(w http.ResponseWriter, r *http.Request, body []byte) systemhttp.Conversation {
	media, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && strings.HasPrefix(media, "multipart/"):
		d.Refuse(w, r, http.StatusUnsupportedMediaType, "attachments (MTOM, SwA) are not taken: send the envelope alone, as text/xml or application/soap+xml")
		return nil
	case err != nil || media != version11.mediaType() && media != version12.mediaType():
		d.Refuse(w, r, http.StatusUnsupportedMediaType, "send text/xml (SOAP 1.1) or application/soap+xml (SOAP 1.2)")
		return nil
	}
	e, err := parse(body, parameters["charset"])
	if err != nil {
		f := &fault{code: "Client", reason: err.Error()}
		if errors.Is(err, errVersion) {
			f.code = "VersionMismatch"
		}
		v := version11
		if media == version12.mediaType() {
			v = version12
		}
		writeFault(w, v, http.StatusBadRequest, f, nil)
		return nil
	}
	c := &conversation{dialect: d, version: e.version, relatesTo: e.text(nsAddress, "MessageID"), security: e.header(nsSecurity, "Security")}
	c.action = strings.Trim(r.Header.Get("SOAPAction"), `"`)
	if action := parameters["action"]; action != "" {
		c.action = action
	}
	if c.action == "" {
		c.action = e.text(nsAddress, "Action")
	}
	if f := c.open(e); f != nil {
		status := http.StatusBadRequest
		if f.code == "Server" {
			status = http.StatusServiceUnavailable
		}
		writeFault(w, e.version, status, f, c.addressing(""))
		return nil
	}
	return c
}

// conversation with a caller.
type conversation struct {
	*dialect
	version   version
	message   *sdk.Message
	action    string
	relatesTo string
	// security is the header wsse:Security; nil where there is none.
	security *header
}

func (c *conversation) open(e *envelope) *fault {
	for _, h := range e.headers {
		if h.mustUnderstand && h.name.Space != nsAddress && (c.gate == nil || h.name.Space != nsSecurity) {
			return &fault{code: "MustUnderstand", reason: fmt.Sprintf("the header %.80s is not understood here", h.name.Local)}
		}
	}
	if c.gate != nil {
		if f := c.gate.check(e, time.Now()); f != nil {
			return f
		}
	}
	if e.payload == nil {
		return &fault{code: "Client", reason: "the Body holds no element"}
	}
	if c.answers && !e.answersHere() {
		return &fault{code: "Client", reason: "the answer goes back over the same connection: leave ReplyTo and FaultTo out, or make them " + nsAddress + "/anonymous"}
	}
	m := &sdk.Message{Data: e.payload, ContentType: "application/xml", Headers: map[string]string{}}
	if c.json {
		var err error
		if m.Data, err = c.toJSON(e.payload); err != nil {
			return &fault{code: "Client", reason: err.Error()}
		}
		m.ContentType = "application/json"
	}
	if usable(c.action) {
		m.Headers[nameAction] = c.action
	}
	if usable(e.name.Local) {
		m.Headers[nameOperation] = e.name.Local
	}
	if c.relatesTo != "" {
		if !usable(c.relatesTo) {
			return &fault{code: "Client", reason: "the MessageID is too long, or holds control characters"}
		}
		m.ID, m.Endpoint = c.relatesTo, c.path+"/addressing"
	}
	c.message = m
	return nil
}

// usable as an attribute.
func usable(s string) bool {
	return s != "" && len(s) <= maxAttribute && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Message implements Conversation.
func (c *conversation) Message() *sdk.Message { return c.message }

// Accept implements Conversation.
func (c *conversation) Accept(w http.ResponseWriter) {
	if len(c.response) == 0 {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	writeEnvelope(w, c.version, http.StatusOK, c.addressing("Response"), c.response)
}

// Refuse implements Conversation.
func (c *conversation) Refuse(w http.ResponseWriter, status int, detail string) {
	if c.gate != nil && status == http.StatusServiceUnavailable { // the caller is asked to send it again
		c.gate.forget(c.security)
	}
	writeFault(w, c.version, status, faultOf(status, detail), c.addressing(""))
}

// Answer implements Conversation.
func (c *conversation) Answer(w http.ResponseWriter, a *sdk.Answer) {
	if a.Status >= http.StatusMultipleChoices {
		writeFault(w, c.version, a.Status, answeredFault(a), c.addressing(""))
		return
	}
	payload, err := c.payload(a)
	if err != nil {
		c.Refuse(w, http.StatusBadGateway, "the answer makes no SOAP: "+err.Error())
		return
	}
	writeEnvelope(w, c.version, http.StatusOK, c.addressing("Response"), payload)
}

// answeredFault is what an answer that is none says.
func answeredFault(a *sdk.Answer) *fault {
	f := faultOf(a.Status, http.StatusText(a.Status))
	switch a.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests:
		f.code = "Server" // what the bus may do there is not the caller's business
	}
	var problem struct {
		Detail string `json:"detail"`
		Title  string `json:"title"`
	}
	if sdk.FormatOf(a.ContentType) == sdk.FormatJSON && json.Unmarshal(a.Data, &problem) == nil {
		if problem.Detail == "" {
			problem.Detail = problem.Title
		}
		if problem.Detail != "" {
			f.reason = problem.Detail
		}
	}
	return f
}

func (c *conversation) payload(a *sdk.Answer) ([]byte, error) {
	switch format := sdk.FormatOf(a.ContentType); {
	case len(a.Data) == 0:
		return nil, nil
	case format == sdk.FormatJSON:
		return c.toXML(a.Data)
	case format == sdk.FormatXML:
		_, parameters, _ := mime.ParseMediaType(a.ContentType)
		return codec.RecodeXML(a.Data, parameters["charset"], "")
	default:
		return nil, fmt.Errorf("its content type is %.80q, and JSON or XML is wanted", a.ContentType)
	}
}

// addressing headers of an answer, to a caller that uses them.
func (c *conversation) addressing(suffix string) []byte {
	if c.relatesTo == "" {
		return nil
	}
	out := []byte(`<wsa:RelatesTo xmlns:wsa="` + nsAddress + `">`)
	out = append(xmlns.AppendText(out, c.relatesTo), "</wsa:RelatesTo>"...)
	if suffix != "" && c.action != "" {
		out = append(out, `<wsa:Action xmlns:wsa="`+nsAddress+`">`...)
		out = append(xmlns.AppendText(out, c.action+suffix), "</wsa:Action>"...)
	}
	return out
}
