package soap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const custodyOptions = `"namespace":"urn:police:custody:1","prefixes":{"p":"urn:police:person:2"},"arrays":["Charge"]`

// listening is a source that runs.
type listening struct {
	url     string
	bus     *fakes.Publisher
	caller  *fakes.Caller
	state   *fakes.Reporter
	secrets *fakes.Secrets
}

func listen(t *testing.T, config contract.Config, options string) *listening {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config.Source == nil {
		config.Source = &contract.Source{Format: sdk.FormatJSON, EventType: "custody.arrest"}
	}
	if config.Auth.Kind == "" {
		config.Auth.Kind = contract.AuthAnonymous
	}
	l := &listening{bus: &fakes.Publisher{}, caller: &fakes.Caller{}, state: &fakes.Reporter{}, secrets: &fakes.Secrets{}, url: "http://" + listener.Addr().String()}
	l.secrets.Set(map[string]string{contract.FileUsername: "custody", contract.FilePassword: "first-password"})
	rt := fakes.Runtime(t, &config, l.secrets, listener)
	rt.Caller = l.caller
	s, err := NewSource(rt, json.RawMessage(options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l.bus, l.state) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return l
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (l *listening) send(t *testing.T, method, path, contentType, action, body string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, l.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	if action != "" {
		request.Header.Set("SOAPAction", `"`+action+`"`)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(content)}
}

// fault of a reply, which must be one.
func (r reply) fault(t *testing.T) *fault {
	t.Helper()
	e, err := parse([]byte(r.body), "")
	if err != nil || e.fault == nil {
		t.Fatalf("%d %s is no fault: %v", r.status, r.body, err)
	}
	return e.fault
}

func TestSourceTakesEnvelopes(t *testing.T) {
	l := listen(t, contract.Config{}, `{"path":"/custody",`+custodyOptions+`,"response":"<RegisterArrestResponse xmlns=\"urn:police:custody:1\"/>"}`)
	r := l.send(t, http.MethodPost, "/custody", "text/xml; charset=iso-8859-1", "urn:RegisterArrest", strings.Replace(registerEnvelope, "<h:Trace", "<h:Trace xmlns:z='urn:z'", 1))
	if f := r.fault(t); f.code != "MustUnderstand" || r.status != http.StatusInternalServerError {
		t.Fatalf("a header that must be understood, and is not: %d %s", r.status, r.body)
	}
	understood := strings.Replace(registerEnvelope, `SOAP-ENV:mustUnderstand="1">x`, ">x", 1)
	understood = strings.Replace(understood, "<SOAP-ENV:Header>", `<SOAP-ENV:Header><wsa:MessageID xmlns:wsa="`+nsAddress+`">urn:uuid:17</wsa:MessageID>`, 1)
	r = l.send(t, http.MethodPost, "/custody", "text/xml; charset=iso-8859-1", "urn:RegisterArrest", understood)
	if r.status != http.StatusOK || !strings.Contains(r.body, `<RegisterArrestResponse xmlns="urn:police:custody:1"/>`) || !strings.Contains(r.body, ">urn:uuid:17</wsa:RelatesTo>") {
		t.Fatalf("%d %s", r.status, r.body)
	}
	stored := l.bus.Stored()
	if len(stored) != 1 {
		t.Fatalf("%d messages", len(stored))
	}
	m := stored[0]
	if m.ID != "urn:uuid:17" || m.Headers[nameAction] != "urn:RegisterArrest" || m.Headers[nameOperation] != "RegisterArrest" || m.ContentType != "application/json" ||
		!strings.Contains(string(m.Data), `"p:Surname":"Söderström"`) {
		t.Errorf("%+v %s", m, m.Data)
	}
}

func TestSourceKeepsXML(t *testing.T) {
	l := listen(t, contract.Config{Source: &contract.Source{Format: sdk.FormatXML, EventType: "e"}}, `{}`)
	r := l.send(t, http.MethodPost, "/", "application/soap+xml; charset=utf-8; action=\"urn:a\"", "", envelope12("", `<a xmlns="urn:x">1</a>`))
	if r.status != http.StatusAccepted || r.body != "" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if m := l.bus.Stored()[0]; string(m.Data) != `<a xmlns="urn:x">1</a>` || m.Headers[nameAction] != "urn:a" || m.ID == "" {
		t.Errorf("%+v %s", m, m.Data)
	}
}

// Every refusal is a fault of the caller's version that says what to do.
func TestSourceRefuses(t *testing.T) {
	l := listen(t, contract.Config{}, `{"path":"/in","maxBodySize":"4Ki"}`)
	ok := envelope12("", "<a/>")
	for _, c := range []struct {
		name, method, path, contentType, body string
		status                                int
		code, says                            string
	}{
		{"path", "POST", "/other", "text/xml", ok, 404, "Client", "/in"},
		{"method", "PUT", "/in", "text/xml", ok, 405, "Client", "send POST"},
		{"no WSDL", "GET", "/in?wsdl", "", "", 405, "Client", "send POST"},
		{"content type", "POST", "/in", "application/json", "{}", 415, "Client", "application/soap+xml"},
		{"attachments", "POST", "/in", `multipart/related; type="application/xop+xml"; boundary=x`, ok, 415, "Client", "MTOM"},
		{"too large", "POST", "/in", "text/xml", envelope12("", "<a>"+strings.Repeat("x", 5000)+"</a>"), 413, "Client", "maxBodySize"},
		{"no XML", "POST", "/in", "text/xml", "hello", 500, "Client", "no SOAP envelope"},
		{"version", "POST", "/in", "text/xml", `<Envelope xmlns="urn:x"/>`, 500, "VersionMismatch", "neither"},
		{"version, asked in 1.2", "POST", "/in", "application/soap+xml", `<Envelope xmlns="urn:x"/>`, 400, "VersionMismatch", "neither"},
		{"empty", "POST", "/in", "application/soap+xml", envelope12("", ""), 400, "Sender", "no element"},
		{"entities", "POST", "/in", "text/xml", `<!DOCTYPE a [<!ENTITY b "c">]>` + ok, 500, "Client", "no SOAP envelope"},
	} {
		r := l.send(t, c.method, c.path, c.contentType, "", c.body)
		if f := r.fault(t); r.status != c.status || f.code != c.code || !strings.Contains(f.reason, c.says) {
			t.Errorf("%s: %d %s", c.name, r.status, r.body)
		}
	}
	l.bus.Fail(sdk.ErrFull)
	r := l.send(t, http.MethodPost, "/in", "application/soap+xml", "", ok)
	if f := r.fault(t); r.status != http.StatusServiceUnavailable || f.code != "Receiver" || r.header.Get("Retry-After") == "" {
		t.Errorf("a full bus: %d %v %s", r.status, r.header, r.body)
	}
	if n := len(l.bus.Stored()); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
}

func TestWSDLSaysWhereTheListenerIs(t *testing.T) {
	const wsdl = `<?xml version=\"1.0\"?><definitions xmlns=\"http://schemas.xmlsoap.org/wsdl/\"><service><port><soap:address xmlns:soap=\"http://schemas.xmlsoap.org/wsdl/soap/\" location=\"http://old\"/></port></service></definitions>`
	l := listen(t, contract.Config{}, `{"wsdl":{"inline":"`+wsdl+`","address":"https://bus.example/custody?a=1&b=2"}}`)
	r := l.send(t, http.MethodGet, "/?WSDL", "", "", "")
	if r.status != http.StatusOK || !strings.Contains(r.body, `location="https://bus.example/custody?a=1&amp;b=2"/>`) || strings.Contains(r.body, "http://old") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := l.send(t, http.MethodGet, "/", "", "", ""); r.status != http.StatusMethodNotAllowed {
		t.Errorf("%d", r.status)
	}
}

// Behind auth of HTTP's own the WSDL is not for everybody.
func TestWSDLBehindAuth(t *testing.T) {
	l := listen(t, contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}, `{"wsdl":{"inline":"<a/>"}}`)
	if r := l.send(t, http.MethodGet, "/?wsdl", "", "", ""); r.status != http.StatusUnauthorized || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestSourceAsksForATokenInTheEnvelope(t *testing.T) {
	l := listen(t, contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}, `{"security":"UsernameTokenDigest"}`)
	send := func(password string) reply {
		header := account{"custody", password}.token(true, time.Now())
		return l.send(t, http.MethodPost, "/", "text/xml", "", string(build(version11, header, []byte("<a/>"))))
	}
	if r := send("wrong"); r.status != http.StatusInternalServerError || !strings.Contains(r.body, "wsse:FailedAuthentication") || strings.Contains(r.body, "first-password") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := send("first-password"); r.status != http.StatusAccepted {
		t.Errorf("%d %s", r.status, r.body)
	}
	l.secrets.Set(map[string]string{contract.FileUsername: "custody", contract.FilePassword: "second-password"})
	if r := send("first-password"); r.status != http.StatusInternalServerError {
		t.Errorf("the former password: %d %s", r.status, r.body)
	}
	if r := send("second-password"); r.status != http.StatusAccepted {
		t.Errorf("%d %s", r.status, r.body)
	}
	l.secrets.Set(map[string]string{contract.FileUsername: "custody", contract.FilePassword: ""})
	fakes.Eventually(t, 10*time.Second, "the status complains", func() bool { err, _ := l.state.State(); return err != nil })
	if r := send(""); r.status != http.StatusServiceUnavailable {
		t.Errorf("an empty password lets nobody in: %d %s", r.status, r.body)
	}
}

func TestExchange(t *testing.T) {
	l := listen(t, contract.Config{}, `{"exchange":"RequestReply",`+custodyOptions+`}`)
	l.caller.Respond(func(_ context.Context, r *sdk.Request) *sdk.Answer {
		a := &sdk.Answer{Status: 200}
		switch {
		case strings.Contains(string(r.Data), "missing"):
			a.Status, a.Data, a.ContentType, a.Hop = 404, []byte(`{"detail":"no such person"}`), "application/problem+json", "ns/registry"
		case strings.Contains(string(r.Data), "bad"):
			a.Status, a.Data, a.ContentType = 400, []byte(`{"detail":"id is no number"}`), "application/problem+json"
		case strings.Contains(string(r.Data), "xml"):
			a.Data, a.ContentType = []byte(`<?xml version="1.0"?><x/>`), "application/xml"
		case strings.Contains(string(r.Data), "text"):
			a.Data, a.ContentType = []byte(`hello`), "text/plain"
		case strings.Contains(string(r.Data), "none"):
		default:
			a.Data, a.ContentType = []byte(`{"FindPersonResponse":{"p:Surname":"Ö"}}`), "application/json"
		}
		return a
	})
	find := func(what string) reply {
		return l.send(t, http.MethodPost, "/", "text/xml", "urn:Find", string(build(version11, nil, []byte(`<FindPerson xmlns="urn:police:custody:1">`+what+`</FindPerson>`))))
	}
	if r := find("17"); r.status != 200 || !strings.Contains(r.body, `<soap:Body><FindPersonResponse xmlns="urn:police:custody:1" xmlns:p="urn:police:person:2"><p:Surname>Ö</p:Surname></FindPersonResponse></soap:Body>`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	if asked := l.caller.Requests()[0]; string(asked.Data) != `{"FindPerson":"17"}` || asked.Method != http.MethodPost || asked.Message.Headers[nameAction] != "urn:Find" {
		t.Errorf("%+v %s", asked, asked.Data)
	}
	for what, want := range map[string]string{
		"missing": "<faultcode xmlns:wsse=\"" + nsSecurity + "\">soap:Server</faultcode><faultstring>no such person", "bad": "soap:Client</faultcode><faultstring>id is no number",
		"xml": "<soap:Body><x/></soap:Body>", "text": "soap:Server</faultcode><faultstring>the answer makes no SOAP", "none": "<soap:Body></soap:Body>",
	} {
		if r := find(what); !strings.Contains(r.body, want) {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
}

// court is a system that answers as a test says, and keeps what it was sent.
type court struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request, e *envelope)
	seen   []*envelope
	header http.Header
}

func newCourt(t *testing.T) *court {
	t.Helper()
	c := &court{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		e, err := parse(body, "")
		if err != nil {
			t.Errorf("%s: %v", body, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen, c.header = append(c.seen, e), r.Header
		c.answer(w, r, e)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *court) reply(f func(w http.ResponseWriter, r *http.Request, e *envelope)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

func (c *court) last() (*envelope, http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[len(c.seen)-1], c.header
}

func envelopeOf(v version, payload string) func(http.ResponseWriter, *http.Request, *envelope) {
	return func(w http.ResponseWriter, _ *http.Request, _ *envelope) {
		writeEnvelope(w, v, 200, nil, []byte(payload))
	}
}

func faulty(v version, status int, f *fault) func(http.ResponseWriter, *http.Request, *envelope) {
	return func(w http.ResponseWriter, _ *http.Request, _ *envelope) {
		writeEnvelope(w, v, status, nil, f.render(v))
	}
}

func plain(status int, contentType, body string) func(http.ResponseWriter, *http.Request, *envelope) {
	return func(w http.ResponseWriter, _ *http.Request, _ *envelope) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func client(t *testing.T) (*contract.Config, *fakes.Secrets) {
	t.Helper()
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{contract.FileUsername: "bus", contract.FilePassword: "first-password"})
	return &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}, secrets
}

func TestSinkJudgesAnswers(t *testing.T) {
	c := newCourt(t)
	config, secrets := client(t)
	s, err := NewSink(fakes.Runtime(t, config, secrets, nil), fakes.JSON(t, map[string]any{
		"url": c.URL + "/court", "security": "UsernameToken",
		"call": map[string]any{"action": "urn:Submit/{data.SubmitCase.Kind}", "addressing": "Headers", "namespace": "urn:court", "retryOn": []string{"Locked"}, "rejectOn": []string{"Duplicate"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"SubmitCase":{"Kind":"T","Id":17}}`
	class := func(err error) string {
		var unavailable *sdk.UnavailableError
		switch {
		case err == nil:
			return "delivered"
		case sdk.IsPermanent(err):
			return "permanent"
		case asUnavailable(err, &unavailable):
			return unavailable.Reason
		}
		return "transient"
	}
	for _, x := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request, *envelope)
		want   string
	}{
		{"an envelope", envelopeOf(version11, "<ok/>"), "delivered"},
		{"nothing", plain(202, "", ""), "delivered"},
		{"client", faulty(version11, 500, &fault{code: "Client", reason: "no such court"}), "permanent"},
		{"sender", faulty(version12, 400, &fault{code: "Client"}), "permanent"},
		{"server", faulty(version11, 500, &fault{code: "Server"}), "transient"},
		{"unavailable", faulty(version11, 503, &fault{code: "Server"}), contract.ReasonSystemError},
		{"a fault with 200", faulty(version11, 200, &fault{code: "Client"}), "permanent"},
		{"named to be retried", faulty(version11, 500, &fault{code: "Client", subcodes: []string{"Locked"}}), "transient"},
		{"named to be rejected", faulty(version12, 500, &fault{code: "Server", subcodes: []string{"Duplicate"}}), "permanent"},
		{"token refused", faulty(version11, 500, denied("FailedAuthentication", "who is first-password?")), contract.ReasonAuthenticationFailed},
		{"a page with 200", plain(200, "text/html", "<html>first-password"), "transient"},
		{"attachments", plain(200, "multipart/related; boundary=x", "--x"), "transient"},
		{"no page", plain(404, "text/html", "<html/>"), "permanent"},
		{"forbidden", plain(403, "text/html", ""), contract.ReasonAuthenticationFailed},
		{"gateway", plain(502, "text/html", "<html/>"), contract.ReasonConnectionFailed},
		{"error", plain(500, "text/html", "<html/>"), "transient"},
	} {
		c.reply(x.answer)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := op.Write(ctx, []*sdk.Delivery{fakes.Delivery("1", body)})[0]
		cancel()
		if got := class(err); got != x.want {
			t.Errorf("%s: %s (%v), want %s", x.name, got, err, x.want)
		}
		if err != nil && (strings.Contains(err.Error(), "first-password") || !strings.Contains(err.Error(), c.URL)) {
			t.Errorf("%s: %v names our password, or not the system", x.name, err)
		}
	}
	e, header := c.last()
	if string(e.payload) != `<SubmitCase xmlns="urn:court"><Kind>T</Kind><Id>17</Id></SubmitCase>` || header.Get("SOAPAction") != `"urn:Submit/T"` || header.Get("Content-Type") != "text/xml; charset=utf-8" || header.Get("Authorization") != "" {
		t.Errorf("%s %v", e.payload, header)
	}
	if e.text(nsAddress, "Action") != "urn:Submit/T" || e.text(nsAddress, "To") != c.URL+"/court" || e.header(nsSecurity, "Security") == nil {
		t.Errorf("%+v", e.headers)
	}
	first, _ := c.last()
	again := op.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", body)})
	if second, _ := c.last(); second == first || second.text(nsAddress, "MessageID") != first.text(nsAddress, "MessageID") || first.text(nsAddress, "MessageID") == "" {
		t.Errorf("a message that is delivered again has another id: %v", again)
	}
	for name, body := range map[string]string{"an array": `[]`, "no such field": `{"SubmitCase":{}}`, "quotes in the action": `{"SubmitCase":{"Kind":"a\"b"}}`} {
		if err := op.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", body)})[0]; !sdk.IsPermanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A whole envelope is sent byte for byte, in the character set that it has.
func TestSinkPassesEnvelopesOn(t *testing.T) {
	c := newCourt(t)
	var sent []byte
	c.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		sent, c.header = text, r.Header
		writeEnvelope(w, version11, 200, nil, []byte("<ok/>"))
	})
	config, secrets := client(t)
	s, err := NewSink(fakes.Runtime(t, config, secrets, nil), fakes.JSON(t, map[string]any{"url": c.URL, "call": map[string]any{"action": "urn:find", "content": "Envelope"}}))
	if err != nil {
		t.Fatal(err)
	}
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte, format, contentType string) error {
		d := fakes.Delivery("1", string(text))
		d.Message.Format, d.Message.ContentType = format, contentType
		return op.Write(t.Context(), []*sdk.Delivery{d})[0]
	}
	for file, types := range map[string][2]string{
		"register-rpc-1.1.xml": {"application/xml", "text/xml"},
		"court-signed-1.1.xml": {"text/xml; charset=utf-8", "text/xml; charset=utf-8"},
	} {
		if err := write(fixture(t, file), sdk.FormatXML, types[0]); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		c.mu.Lock()
		if string(sent) != string(fixture(t, file)) || c.header.Get("Content-Type") != types[1] || c.header.Get("SOAPAction") != `"urn:find"` {
			t.Errorf("%s: %v %s", file, c.header, sent)
		}
		sent = nil
		c.mu.Unlock()
	}
	for says, text := range map[string][]byte{
		"is of SOAP 1.2": fixture(t, "court-addressing-1.2.xml"), "no SOAP envelope": []byte("<a/>"), "is neither of": []byte(`<Envelope xmlns="urn:x"/>`),
	} {
		if err := write(text, sdk.FormatXML, "application/xml"); !sdk.IsPermanent(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if err := write([]byte(`{"a":1}`), sdk.FormatJSON, "application/json"); !sdk.IsPermanent(err) {
		t.Error(err)
	}
	if sent != nil {
		t.Errorf("%s was sent", sent)
	}
}

func TestEnvelopesWithHeadersOfOurOwn(t *testing.T) {
	config, secrets := client(t)
	s, err := NewSink(fakes.Runtime(t, config, secrets, nil), json.RawMessage(`{"url":"http://127.0.0.1:1","security":"UsernameToken"}`))
	if err != nil {
		t.Fatal(err)
	}
	for call, says := range map[string]string{
		`{"content":"Envelope"}`:                        "leave security",
		`{"content":"Envelope","addressing":"Headers"}`: "leave addressing",
		`{"content":"Page"}`:                            "neither Element nor Envelope",
	} {
		if _, err := s.Operation(json.RawMessage(call)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := s.Operation(json.RawMessage(`{"content":"Element"}`)); err != nil {
		t.Error(err)
	}
}

func TestService(t *testing.T) {
	c := newCourt(t)
	config, secrets := client(t)
	config.Service = &contract.Service{}
	s, err := NewService(fakes.Runtime(t, config, secrets, nil), fakes.JSON(t, map[string]any{
		"url": c.URL, "security": "UsernameTokenDigest", "call": map[string]any{"version": "1.2", "action": "urn:Find", "namespace": "urn:court", "arrays": []string{"Hearing"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	call := func(format, body string) (*sdk.Answer, error) {
		r := &sdk.Request{Message: sdk.Message{Data: []byte(body), Format: format, ContentType: "application/json"}, Method: http.MethodPost}
		return s.Call(t.Context(), r)
	}
	c.reply(envelopeOf(version12, `<x:FindResponse xmlns:x="urn:court"><x:Hearing at="10:00"/></x:FindResponse>`))
	a, err := call(sdk.FormatJSON, `{"Find":{"Id":17}}`)
	if err != nil || a.Status != 200 || string(a.Data) != `{"FindResponse":{"Hearing":[{"@at":"10:00"}]}}` || a.ContentType != "application/json" {
		t.Fatalf("%+v, %v", a, err)
	}
	e, header := c.last()
	if string(e.payload) != `<Find xmlns="urn:court"><Id>17</Id></Find>` || header.Get("Content-Type") != `application/soap+xml; charset=utf-8; action="urn:Find"` || e.version != version12 {
		t.Errorf("%s %v", e.payload, header)
	}
	if f := (&gate{rt: fakes.Runtime(t, config, secrets, nil), digestOnly: true}).check(e, time.Now()); f != nil {
		t.Error(f)
	}
	if a, err = call(sdk.FormatXML, `<?xml version="1.0"?><Find xmlns="urn:court"/>`); err != nil || a.ContentType != "application/xml" || !strings.HasPrefix(string(a.Data), "<x:FindResponse") {
		t.Errorf("%+v, %v", a, err)
	}
	c.reply(plain(202, "", ""))
	if a, err = call(sdk.FormatJSON, `{"Find":1}`); err != nil || a.Status != http.StatusNoContent {
		t.Errorf("%+v, %v", a, err)
	}
	c.reply(func(w http.ResponseWriter, _ *http.Request, _ *envelope) {
		writeEnvelope(w, version12, 500, nil, []byte(`<soap:Fault><soap:Code><soap:Value>soap:Sender</soap:Value></soap:Code><soap:Reason><soap:Text xml:lang="en">no court 17</soap:Text></soap:Reason><soap:Detail><c:Known xmlns:c="urn:court">1</c:Known></soap:Detail></soap:Fault>`))
	})
	a, err = call(sdk.FormatJSON, `{"Find":1}`)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"SOAP fault Sender: no court 17","hop":"test/connector","fault":{"code":"Sender","reason":"no court 17","detail":{"Known":"1"}}}`
	if a.Status != 400 || string(a.Data) != want || a.ContentType != "application/problem+json" {
		t.Errorf("%d %s", a.Status, a.Data)
	}
	c.reply(faulty(version12, 500, &fault{code: "Server", reason: "later"}))
	if a, err = call(sdk.FormatJSON, `{"Find":1}`); err != nil || a.Status != 502 {
		t.Errorf("%+v, %v", a, err)
	}
	for name, x := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request, *envelope)
		body   string
		want   string
	}{
		"a page":        {plain(200, "text/html", "<html/>"), `{"Find":1}`, "502"},
		"gone":          {plain(503, "text/html", "<html/>"), `{"Find":1}`, "503"},
		"no element":    {plain(202, "", ""), `[]`, "400"},
		"token refused": {faulty(version12, 500, denied("FailedAuthentication", "no")), `{"Find":1}`, contract.ReasonAuthenticationFailed},
	} {
		c.reply(x.answer)
		_, err := call(sdk.FormatJSON, x.body)
		var status *sdk.CallError
		var unavailable *sdk.UnavailableError
		got := fmt.Sprint(err)
		if asCall(err, &status) {
			got = fmt.Sprint(status.Status)
		} else if asUnavailable(err, &unavailable) {
			got = unavailable.Reason
		}
		if got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
	}
}

func asUnavailable(err error, into **sdk.UnavailableError) bool { return errors.As(err, into) }

func asCall(err error, into **sdk.CallError) bool { return errors.As(err, into) }
