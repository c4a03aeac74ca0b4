package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/quantity"
)

// listening is a source that runs.
type listening struct {
	url     string
	bus     *fakes.Publisher
	state   *fakes.Reporter
	secrets *fakes.Secrets
	client  *http.Client
	stop    func() error
}

func listen(t *testing.T, config contract.Config, options string) *listening {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config.Source == nil {
		config.Source = &contract.Source{Format: sdk.FormatJSON, EventType: "test.event"}
	}
	l := &listening{bus: &fakes.Publisher{}, state: &fakes.Reporter{}, secrets: &fakes.Secrets{}}
	s, err := NewSource(fakes.Runtime(t, &config, l.secrets, listener), []byte(options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l.bus, l.state) }()
	l.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = l.stop() })
	scheme := "http"
	if config.TLS != nil {
		scheme = "https"
	}
	l.url = scheme + "://" + listener.Addr().String()
	l.client = &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	t.Cleanup(l.client.CloseIdleConnections)
	return l
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (l *listening) send(t *testing.T, method, path string, header map[string]string, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, l.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := l.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(content)}
}

func (l *listening) post(t *testing.T, header map[string]string, body string) answer {
	t.Helper()
	return l.send(t, http.MethodPost, "/", header, body)
}

// message is what matters of a stored message.
type message struct {
	ID, Endpoint, Type, Source, Subject, ContentType, Key, Data string
	Headers                                                     map[string]string
}

func stored(l *listening) []message {
	var out []message
	for _, m := range l.bus.Stored() {
		out = append(out, message{m.ID, m.Endpoint, m.Type, m.Source, m.Subject, m.ContentType, m.PartitionKey, string(m.Data), m.Headers})
	}
	return out
}

func TestPlainRequest(t *testing.T) {
	l := listen(t, contract.Config{}, `{"path":"/arrests","maxBodySize":"1Mi","allowFrom":[{"podSelector":{}}]}`)
	a := l.send(t, http.MethodPost, "/arrests", map[string]string{
		"Content-Type": "application/json", "Idempotency-Key": `"k-1"`,
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate": "a=b",
	}, `{"id": 1 }`)
	if a.status != http.StatusAccepted || a.body != `{"id":"k-1"}` {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want := []message{{ID: "k-1", Endpoint: "/arrests/key", ContentType: "application/json", Data: `{"id": 1 }`, Headers: map[string]string{
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}}}
	if diff := cmp.Diff(want, stored(l)); diff != "" {
		t.Error(diff)
	}
	if a := l.send(t, http.MethodPut, "/arrests", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, `{}`); a.status != http.StatusAccepted {
		t.Errorf("%d %s", a.status, a.body)
	}
	m := l.bus.Stored()[1]
	if m.ContentType != "application/json" || len(m.ID) != 36 {
		t.Errorf("got %q %q", m.ContentType, m.ID)
	}
}

func TestCloudEvents(t *testing.T) {
	l := listen(t, contract.Config{Connector: contract.Connector{Marking: "OFFICIAL"}}, `{}`)
	binary := map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": "b%201", "Ce-Source": "/custody", "Ce-Type": "test.event.x",
		"Ce-Subject": "caf%C3%A9", "Ce-Time": "2026-01-02T03:04:05Z", "Ce-Partitionkey": "p", "Ce-Station": "north", "Ce-Marking": "OFFICIAL",
		"Ce-Traceparent": "not valid",
	}
	if a := l.post(t, binary, `{"n":1}`); a.status != http.StatusAccepted || a.body != `{"id":"b 1"}` {
		t.Fatalf("%d %s", a.status, a.body)
	}
	structured := map[string]string{"Content-Type": "application/cloudevents+json; charset=utf-8"}
	for _, event := range []string{
		`{"specversion":"1.0","id":"s1","source":"urn:x","type":"test.event","data":{"a": [1, 2]},"station":"n\u006frth","flag":true,"count":7,"nothing":null}`,
		`{"specversion":"1.0","id":"s2","source":"urn:x","type":"test.event","datacontenttype":"application/json","data":"text"}`,
		`{"specversion":"1.0","id":"s3","source":"urn:x","type":"test.event","data_base64":"eyJiIjoxfQ=="}`,
		` { "data" : [ "}" ] , "specversion" : "1.0" , "id" : "s4", "source":"urn:x","type":"test.event" } `,
	} {
		if a := l.post(t, structured, event); a.status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", event, a.status, a.body)
		}
	}
	const endpoint = "/event/urn:x"
	want := []message{
		{ID: "b 1", Endpoint: "/event/%2Fcustody", Type: "test.event.x", Source: "/custody", Subject: "café", ContentType: "application/json", Key: "p", Data: `{"n":1}`, Headers: map[string]string{"station": "north"}},
		{ID: "s1", Endpoint: endpoint, Type: "test.event", Source: "urn:x", ContentType: "application/json", Data: `{"a": [1, 2]}`, Headers: map[string]string{"station": "north", "flag": "true", "count": "7"}},
		{ID: "s2", Endpoint: endpoint, Type: "test.event", Source: "urn:x", ContentType: "application/json", Data: `"text"`},
		{ID: "s3", Endpoint: endpoint, Type: "test.event", Source: "urn:x", ContentType: "application/json", Data: `{"b":1}`},
		{ID: "s4", Endpoint: endpoint, Type: "test.event", Source: "urn:x", ContentType: "application/json", Data: `[ "}" ]`},
	}
	if diff := cmp.Diff(want, stored(l)); diff != "" {
		t.Error(diff)
	}
}

func TestBatch(t *testing.T) {
	l := listen(t, contract.Config{}, `{}`)
	batch := map[string]string{"Content-Type": "application/cloudevents-batch+json"}
	event := func(id, data string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"s","type":"test.event","data":` + data + `}`
	}
	if a := l.post(t, batch, "["+event("1", "{}")+" , "+event("2", "[]")+"]"); a.status != http.StatusAccepted || a.body != `{"ids":["1","2"]}` {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := l.post(t, batch, "["+event("3", "{}")+","+`{"id":"4"}`+"]"); a.status != http.StatusBadRequest || !strings.Contains(a.body, "event 1 of the batch") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := l.post(t, batch, "[]"); a.status != http.StatusAccepted {
		t.Errorf("an empty batch: %d %s", a.status, a.body)
	}
	many := strings.Repeat(event("x", "1")+",", maxBatchEvents) + event("x", "1")
	if a := l.post(t, batch, "["+many+"]"); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := len(l.bus.Stored()); n != 2 {
		t.Errorf("%d messages: a batch that is refused must store nothing", n)
	}
}

func TestRefusals(t *testing.T) {
	l := listen(t, contract.Config{}, `{"path":"/in","maxBodySize":"2k"}`)
	jsonType := map[string]string{"Content-Type": "application/json"}
	event := func(attributes string) string {
		return `{"specversion":"1.0","id":"1","source":"s","type":"t","data":{}` + attributes + `}`
	}
	with := func(pairs ...string) map[string]string {
		header := map[string]string{"Content-Type": "application/json"}
		for i := 0; i < len(pairs); i += 2 {
			header[pairs[i]] = pairs[i+1]
		}
		return header
	}
	structured := with("Content-Type", "application/cloudevents+json")
	tests := []struct {
		name         string
		method, path string
		header       map[string]string
		body         string
		status       int
		detail       string
	}{
		{"path", "POST", "/other", jsonType, "{}", 404, "/in"},
		{"path below", "POST", "/in/x", jsonType, "{}", 404, "/in"},
		{"method", "GET", "/in", nil, "", 405, "POST or PUT"},
		{"bad JSON", "POST", "/in", jsonType, `{"a":}`, 400, "not JSON"},
		{"two documents", "POST", "/in", jsonType, `{} {}`, 400, "not JSON"},
		{"nothing", "POST", "/in", jsonType, "", 400, "not JSON"},
		{"not UTF-8", "POST", "/in", jsonType, "\"\xff\"", 400, "UTF-8"},
		{"deep", "POST", "/in", jsonType, strings.Repeat("[", 600) + strings.Repeat("]", 600), 400, "deep"},
		{"deeper", "POST", "/in", jsonType, strings.Repeat("[", 2000), 400, "not JSON"},
		{"too large", "POST", "/in", jsonType, `"` + strings.Repeat("x", 2000) + `"`, 413, "2000 bytes"},
		{"compressed", "POST", "/in", with("Content-Encoding", "gzip"), "x", 415, "gzip"},
		{"charset", "POST", "/in", with("Content-Type", "application/json; charset=iso-8859-1"), "{}", 415, "UTF-8"},
		{"event format", "POST", "/in", with("Content-Type", "application/cloudevents+xml"), "<x/>", 415, "application/cloudevents+json"},
		{"empty key", "POST", "/in", with("Idempotency-Key", `""`), "{}", 400, "Idempotency-Key"},
		{"long key", "POST", "/in", with("Idempotency-Key", strings.Repeat("k", 257)), "{}", 400, "Idempotency-Key"},
		{"binary without id", "POST", "/in", with("Ce-Specversion", "1.0", "Ce-Type", "t", "Ce-Source", "s"), "{}", 400, "id is missing"},
		{"binary of another version", "POST", "/in", with("Ce-Id", "1", "Ce-Type", "t", "Ce-Source", "s"), "{}", 400, "specversion"},
		{"injection", "POST", "/in", with("Ce-Specversion", "1.0", "Ce-Id", "a%0d%0aNats-Msg-Id: x", "Ce-Type", "t", "Ce-Source", "s"), "{}", 400, "control characters"},
		{"structured not an object", "POST", "/in", structured, "[]", 400, "not a JSON object"},
		{"structured without source", "POST", "/in", structured, `{"specversion":"1.0","id":"1","type":"t"}`, 400, "source is missing"},
		{"structured injection", "POST", "/in", structured, event(`,"ext":"a\r\nb"`), 400, "control characters"},
		{"structured name", "POST", "/in", structured, event(`,"Nats-Msg-Id":"x"`), 400, "attribute name"},
		{"structured twice", "POST", "/in", structured, event(`,"id":"2"`), 400, "twice"},
		{"structured object", "POST", "/in", structured, event(`,"ext":{}`), 400, "ext"},
		{"structured number", "POST", "/in", structured, event(`,"ext":1.5`), 400, "integer"},
		{"structured both", "POST", "/in", structured, event(`,"data_base64":""`), 400, "not both"},
		{"structured base64", "POST", "/in", structured, `{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"*"}`, 400, "base64"},
		{"structured time", "POST", "/in", structured, event(`,"time":"now"`), 400, "RFC 3339"},
		{"structured text", "POST", "/in", structured, `{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"x"}`, 400, "not JSON"},
		{"foreign marking", "POST", "/in", structured, event(`,"marking":"SECRET"`), 400, "marking"},
		{"many attributes", "POST", "/in", structured, event(func() string {
			var b strings.Builder
			for i := range 80 {
				fmt.Fprintf(&b, `,"a%d":""`, i)
			}
			return b.String()
		}()), 400, "attributes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := l.send(t, test.method, test.path, test.header, test.body)
			var p problemBody
			if err := json.Unmarshal([]byte(a.body), &p); err != nil {
				t.Fatalf("%d %q: %v", a.status, a.body, err)
			}
			if a.status != test.status || p.Status != test.status || !strings.Contains(p.Detail, test.detail) || a.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	if n := len(l.bus.Stored()); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
	chunked, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url+"/in", io.MultiReader(strings.NewReader(`"`+strings.Repeat("x", 3000)+`"`)))
	if err != nil {
		t.Fatal(err)
	}
	response, err := l.client.Do(chunked)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of unknown length: %d", response.StatusCode)
	}
}

func TestFormats(t *testing.T) {
	tests := []struct {
		format, body string
		status       int
		contentType  string
	}{
		{sdk.FormatXML, `<?xml version="1.0"?><a b="c"><d/>x</a>`, 202, "application/xml"},
		{sdk.FormatXML, `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, 400, ""},
		{sdk.FormatXML, `<a></b>`, 400, ""},
		{sdk.FormatXML, `{}`, 400, ""},
		{sdk.FormatXML, `<a/><b/>`, 400, ""},
		{sdk.FormatXML, strings.Repeat("<a>", 300) + strings.Repeat("</a>", 300), 400, ""},
		{sdk.FormatText, "héllo", 202, "text/plain; charset=utf-8"},
		{sdk.FormatText, "\xff", 400, ""},
		{sdk.FormatBinary, "\x00\xff", 202, "application/octet-stream"},
		{sdk.FormatBinary, "", 202, "application/octet-stream"},
	}
	for _, test := range tests {
		l := listen(t, contract.Config{Source: &contract.Source{Format: test.format}}, `{}`)
		a := l.post(t, nil, test.body)
		if a.status != test.status {
			t.Errorf("%s %.40q: %d %s", test.format, test.body, a.status, a.body)
			continue
		}
		if a.status == 202 && l.bus.Stored()[0].ContentType != test.contentType {
			t.Errorf("%s: content type %q", test.format, l.bus.Stored()[0].ContentType)
		}
	}
}

func TestAuthentication(t *testing.T) {
	const body = `{"a":1}`
	sign := func(key string) string { return "sha256=" + hex.EncodeToString(signature([]byte(key), []byte(body))) }
	basic := func(user, password string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	tests := []struct {
		kind    contract.AuthKind
		secrets map[string]string
		header  string
		good    []string
		bad     []string
	}{
		{contract.AuthBasic, map[string]string{"username": "u", "password": "p:q"}, "Authorization",
			[]string{basic("u", "p:q")}, []string{"", basic("u", "p"), basic("u", ""), basic("", "p:q"), basic("u:p", "q2"), "Bearer p:q", "Basic !"}},
		{contract.AuthBearer, map[string]string{"token": "one\n\n two \n"}, "Authorization",
			[]string{"Bearer one", "bearer two"}, []string{"", "Bearer", "Bearer ", "Bearer on", "Bearer one\ttwo", "Basic one", "one"}},
		{contract.AuthHMAC, map[string]string{"hmac-key": "k1\nk2"}, "X-Signature-256",
			[]string{sign("k1"), sign("k2")}, []string{"", sign("k3"), sign("k1")[7:], "sha256=", "sha256=00"}},
	}
	for _, test := range tests {
		t.Run(string(test.kind), func(t *testing.T) {
			l := listen(t, contract.Config{Auth: contract.Auth{Kind: test.kind, Keys: []string{"key"}}}, `{}`)
			a := l.post(t, map[string]string{test.header: test.good[0]}, body)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Fatalf("without the Secret: %d %s", a.status, a.body)
			}
			fakes.Eventually(t, 5*time.Second, "the state says that the Secret is missing", func() bool {
				err, _ := l.state.State()
				var u *sdk.UnavailableError
				return errors.As(err, &u) && u.Reason == contract.ReasonCredentialsMissing
			})
			empty := map[string]string{}
			for file := range test.secrets {
				empty[file] = "\n"
			}
			if test.kind != contract.AuthBasic {
				l.secrets.Set(empty)
				if a := l.post(t, map[string]string{test.header: "Bearer "}, body); a.status != http.StatusServiceUnavailable {
					t.Fatalf("an empty Secret must let nobody in: %d", a.status)
				}
			}
			l.secrets.Set(test.secrets)
			for _, value := range test.good {
				if a := l.post(t, map[string]string{test.header: value}, body); a.status != http.StatusAccepted {
					t.Errorf("%q: %d %s", value, a.status, a.body)
				}
			}
			for _, value := range test.bad {
				header := map[string]string{test.header: value}
				if value == "" {
					header = nil
				}
				a := l.post(t, header, body)
				if a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%q: %d %s", value, a.status, a.body)
				}
			}
			fakes.Eventually(t, 5*time.Second, "the state is good", func() bool { err, ok := l.state.State(); return ok && err == nil })
			if n := len(l.bus.Stored()); n != len(test.good) {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func TestBusPushesBack(t *testing.T) {
	l := listen(t, contract.Config{}, `{}`)
	for _, err := range []error{sdk.ErrFull, fmt.Errorf("stream x: %w", sdk.ErrFull), sdk.ErrSuspended, errors.New("no servers")} {
		l.bus.Fail(err)
		a := l.post(t, nil, `{}`)
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%v: %d %s", err, a.status, a.body)
		}
	}
	l.bus.Fail(nil)
	if a := l.post(t, nil, `{}`); a.status != http.StatusAccepted {
		t.Errorf("%d %s", a.status, a.body)
	}
	if p := busProblem(fmt.Errorf("%w: type x", sdk.ErrInvalid)); p.status != http.StatusBadRequest {
		t.Errorf("a message that the bus refuses: %d", p.status)
	}
}

func TestNoAnswerBeforeTheBrokerConfirmed(t *testing.T) {
	l := listen(t, contract.Config{}, `{}`)
	release := l.bus.Hold()
	answered := make(chan answer, 1)
	go func() { answered <- l.post(t, nil, `{}`) }()
	fakes.Eventually(t, 5*time.Second, "the message is being published", func() bool { return l.bus.Calls() == 1 })
	select {
	case a := <-answered:
		t.Fatalf("answered %d before the broker confirmed", a.status)
	case <-time.After(100 * time.Millisecond):
	}
	// The pod ends meanwhile: the request in flight is finished first.
	stopped := make(chan error, 1)
	go func() { stopped <- l.stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a request in flight: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	release()
	if a := <-answered; a.status != http.StatusAccepted {
		t.Errorf("%d %s", a.status, a.body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestListenerTLS(t *testing.T) {
	ca, err := certs.New("ca")
	if err != nil {
		t.Fatal(err)
	}
	other, err := certs.New("other")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a *certs.Authority, notAfter time.Time) map[string]string {
		cert, key, err := a.Issue(notAfter, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"tls.crt": cert, "tls.key": key}
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	l := listen(t, contract.Config{TLS: &contract.TLS{Certificate: true, CA: true, CertificateFrom: "Secret web-tls"}}, `{}`)
	fakes.Eventually(t, 5*time.Second, "the state names what is missing", func() bool { err, ok := l.state.State(); return ok && err != nil })
	l.secrets.Set(issue(ca, tomorrow))
	l.secrets.Set(map[string]string{"ca.crt": ca.PEM})
	fakes.Eventually(t, 5*time.Second, "the state is good", func() bool { err, _ := l.state.State(); return err == nil })

	use := func(roots *certs.Authority, pair *tls.Certificate) error {
		config := &tls.Config{RootCAs: roots.Pool(), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
		if pair != nil {
			config.Certificates = []tls.Certificate{*pair}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		response, err := client.Post(l.url, "application/json", bytes.NewReader([]byte(`{}`)))
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusAccepted || response.ProtoMajor != 2 {
			return fmt.Errorf("%d %s", response.StatusCode, response.Proto)
		}
		return nil
	}
	pair, err := ca.Pair(tomorrow, "client")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Pair(tomorrow, "client")
	if err != nil {
		t.Fatal(err)
	}
	if err := use(ca, &pair); err != nil {
		t.Error(err)
	}
	if err := use(ca, nil); err == nil {
		t.Error("a caller without certificate was let in")
	}
	if err := use(ca, &foreign); err == nil {
		t.Error("a caller with a foreign certificate was let in")
	}
	// Rotation: the new certificate is of another authority.
	l.secrets.Set(issue(other, tomorrow))
	fakes.Eventually(t, 5*time.Second, "the new certificate is shown", func() bool { return use(other, &pair) == nil })
	// One that cannot be read changes nothing, but is reported; one that has expired is reported.
	l.secrets.Set(map[string]string{"tls.crt": "rubbish"})
	fakes.Eventually(t, 5*time.Second, "the bad file is reported", func() bool {
		err, _ := l.state.State()
		return err != nil && strings.Contains(err.Error(), "Secret web-tls")
	})
	if err := use(other, &pair); err != nil {
		t.Error(err)
	}
	l.secrets.Set(issue(other, time.Now().Add(-time.Minute)))
	fakes.Eventually(t, 5*time.Second, "the expiry is reported", func() bool {
		err, _ := l.state.State()
		return err != nil && strings.Contains(err.Error(), "expired")
	})
}

func TestBodiesAreBoundedTogether(t *testing.T) {
	l := listen(t, contract.Config{}, `{"maxBodySize":"8Mi"}`)
	var conns []net.Conn
	for range 4 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		// A slow caller: it announces 8 MiB and sends nothing.
		if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	fakes.Eventually(t, 5*time.Second, "another body is put off", func() bool {
		return l.post(t, nil, `{}`).status == http.StatusServiceUnavailable
	})
	for _, conn := range conns {
		_ = conn.Close()
	}
	fakes.Eventually(t, 5*time.Second, "there is room again", func() bool {
		return l.post(t, nil, `{}`).status == http.StatusAccepted
	})
}

func TestSourceOptions(t *testing.T) {
	quantities := map[string]int64{"1": 1, "1Mi": 1 << 20, "1536Ki": 1536 << 10, "1.5k": 1500, "1e3": 1000, "1500m": 2, "2M": 2e6, "0.5Ki": 512}
	for text, want := range quantities {
		if got, err := quantity.Parse(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "1e999999999", "Mi", "1 Mi", "1/2", "--1"} {
		if got, err := quantity.Parse(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	for _, options := range []string{`{"maxBodySize":"257Mi"}`, `{"maxBodySize":"9Mi","exchange":"RequestReply"}`, `{"maxBodySize":0}`, `{"path":"in"}`, `{"pth":"/in"}`, `{"exchange":"Both"}`} {
		if _, _, _, err := decodeSourceOptions([]byte(options)); err == nil {
			t.Errorf("%s is taken", options)
		}
	}
}
