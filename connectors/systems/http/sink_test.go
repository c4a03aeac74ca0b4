package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// target is a system that keeps what it gets and answers as it is told.
type target struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	respond  http.HandlerFunc
	conns    atomic.Int64
}

func newTarget(t *testing.T) *target {
	t.Helper()
	s := newUnstarted()
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func newUnstarted() *target {
	s := &target{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, r)
		s.bodies = append(s.bodies, string(body))
		respond := s.respond
		s.mu.Unlock()
		if respond != nil {
			respond(w, r)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	return s
}

func (s *target) answer(respond http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.respond = respond
}

func (s *target) answerStatus(status int, header ...string) {
	s.answer(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	})
}

func (s *target) last() (*http.Request, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.requests)
	if n == 0 {
		return nil, ""
	}
	return s.requests[n-1], s.bodies[n-1]
}

func (s *target) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func openSink(t *testing.T, config contract.Config, secrets *fakes.Secrets, url, request string) (sdk.Sink, sdk.Operation) {
	t.Helper()
	options := map[string]any{"url": url}
	s, err := NewSink(fakes.Runtime(t, &config, secrets, nil), fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	op, err := s.Operation([]byte(request))
	if err != nil {
		t.Fatal(err)
	}
	return s, op
}

func deliver(t *testing.T, op sdk.Operation, d *sdk.Delivery) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return op.Write(ctx, []*sdk.Delivery{d})[0]
}

func wantUnavailable(t *testing.T, err error, reason, text string) {
	t.Helper()
	var u *sdk.UnavailableError
	if !errors.As(err, &u) || u.Reason != reason || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want Unavailable %s with %q", err, reason, text)
	}
}

func TestRequest(t *testing.T) {
	s := newTarget(t)
	_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL+"/api/",
		`{"method":"PUT","path":"/cases/{data.id}/x?name={data.name}&n={data.n}&e={data.empty}","headers":{"x-station":"{data.name}!","X-Fixed":"{{}}"}}`)
	d := fakes.Delivery("m 1", `{"id":"a/b c","name":"ö&?#","n":5,"empty":""}`)
	d.Headers = map[string]string{"traceparent": "00-x", "station": "nörth", "bad name": "x"}
	d.Subject = "s"
	if err := deliver(t, op, d); err != nil {
		t.Fatal(err)
	}
	r, body := s.last()
	if got, want := r.Method+" "+r.RequestURI, "PUT /api/cases/a%2Fb%20c/x?name=%C3%B6%26%3F%23&n=5&e="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if body != string(d.Data) {
		t.Errorf("body %q", body)
	}
	got := map[string]string{}
	for name := range r.Header {
		got[name] = r.Header.Get(name)
	}
	want := map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": "m%201", "Ce-Source": "/metip/test/source", "Ce-Type": "test.event", "Ce-Time": "2026-01-02T03:04:05Z",
		"Ce-Subject": "s", "Ce-Station": "n%C3%B6rth", "Traceparent": "00-x", "Content-Type": "application/json", "Content-Length": "49",
		"Idempotency-Key": "test_route_db/source-uid/in/m%201", "User-Agent": "metip", "X-Station": "ö&?#!", "X-Fixed": "{}",
	}
	want["Content-Length"] = fmt.Sprint(len(d.Data))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMessagesThatMakeNoRequest(t *testing.T) {
	s := newTarget(t)
	_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, `{"path":"/c/{data.id}?x={data.id}","headers":{"X-A":"{data.h}"}}`)
	for _, body := range []string{`{"h":"x"}`, `{"id":"","h":"x"}`, `{"id":"..","h":"x"}`, `{"id":"1","h":"a\r\nX-Evil: 1"}`, `{"id":null,"h":""}`, `no`, `{"id":{},"h":""}`} {
		if err := deliver(t, op, fakes.Delivery("1", body)); !sdk.IsPermanent(err) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if s.count() != 0 {
		t.Error("a request was made")
	}
}

func TestDelete(t *testing.T) {
	s := newTarget(t)
	_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, `{"method":"DELETE","path":"/c/{id}"}`)
	if err := deliver(t, op, fakes.Delivery("7", `{}`)); err != nil {
		t.Fatal(err)
	}
	if r, body := s.last(); r.Method != http.MethodDelete || r.RequestURI != "/c/7" || body != "" || r.Header.Get("Content-Type") != "" {
		t.Errorf("%s %s %q", r.Method, r.RequestURI, body)
	}
}

func TestClassesOfAnswers(t *testing.T) {
	s := newTarget(t)
	const down, later, never = "down", "later", "never"
	tests := []struct {
		status  int
		request string
		want    string
		after   time.Duration
		header  string
	}{
		{200, "", "", 0, ""}, {201, "", "", 0, ""}, {204, "", "", 0, ""}, {299, "", "", 0, ""},
		{301, "", never, 0, ""}, {302, `{"retryOn":[302]}`, later, 0, ""}, {304, "", never, 0, ""},
		{400, "", never, 0, ""}, {404, "", never, 0, ""}, {404, `{"retryOn":[404]}`, later, 0, ""}, {409, "", never, 0, ""}, {422, "", never, 0, ""},
		{401, "", down, 0, ""}, {403, "", down, 0, ""}, {403, `{"rejectOn":[403]}`, never, 0, ""}, {401, `{"retryOn":[401]}`, later, 0, ""},
		{407, "", later, 0, ""}, {408, "", later, 0, ""}, {425, "", later, 0, ""}, {429, "", later, 0, ""},
		{429, "", later, 7 * time.Second, "7"}, {429, `{"rejectOn":[429]}`, never, 0, "7"}, {404, "", never, 0, "7"},
		{500, "", later, 0, ""}, {501, "", later, 0, ""}, {599, "", later, 0, ""}, {500, `{"rejectOn":[500]}`, never, 0, ""},
		{502, "", down, 0, ""}, {503, "", down, 10 * time.Minute, "86400"}, {504, "", down, 0, "x"}, {503, `{"retryOn":[503]}`, later, 0, ""},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.status, test.request, test.header), func(t *testing.T) {
			request := test.request
			if request == "" {
				request = "{}"
			}
			_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, request)
			s.answerStatus(test.status, "Retry-After", test.header, "Location", s.URL+"/elsewhere")
			before := s.count()
			err := deliver(t, op, fakes.Delivery("1", `{}`))
			var u *sdk.UnavailableError
			class := later
			switch {
			case err == nil:
				class = ""
			case sdk.IsPermanent(err):
				class = never
			case errors.As(err, &u):
				class = down
			}
			if class != test.want {
				t.Errorf("%q (%v), want %q", class, err, test.want)
			}
			var ra *sdk.RetryAfterError
			if errors.As(err, &ra) != (test.after > 0) || (ra != nil && ra.After != test.after) {
				t.Errorf("Retry-After: %v", err)
			}
			if s.count() != before+1 {
				t.Errorf("%d requests", s.count()-before)
			}
		})
	}
}

func TestErrorsAreShortAndHoldNoSecret(t *testing.T) {
	s := newTarget(t)
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{"token": "s3cr3t"})
	_, op := openSink(t, contract.Config{Auth: contract.Auth{Kind: contract.AuthBearer}}, secrets, s.URL, `{"path":"/c/{data.id}?key={data.id}"}`)
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(w, "no\n\tway\x00 %s %s", r.Header.Get("Authorization"), strings.Repeat("long ", 100000))
	})
	err := deliver(t, op, fakes.Delivery("1", `{"id":"personal"}`))
	wantUnavailable(t, err, contract.ReasonAuthenticationFailed, "POST "+s.URL+"/c/{data.id}: 401 Unauthorized: no way Bearer *** long")
	for _, text := range []string{"s3cr3t", "personal", "\n", "key="} {
		if strings.Contains(err.Error(), text) {
			t.Errorf("%q is in %q", text, err)
		}
	}
	if len(err.Error()) > contract.MaxReportMessage {
		t.Errorf("%d bytes", len(err.Error()))
	}
}

func TestSinkAuthentication(t *testing.T) {
	s := newTarget(t)
	tests := []struct {
		kind          contract.AuthKind
		secrets       map[string]string
		header, value string
	}{
		{contract.AuthBasic, map[string]string{"username": "u", "password": "p"}, "Authorization", "Basic dTpw"},
		{contract.AuthBearer, map[string]string{"token": "t"}, "Authorization", "Bearer t"},
		{contract.AuthHMAC, map[string]string{"hmac-key": "k"}, "X-Signature-256", "sha256=71a4b0c1bde7bea0ba6e3a1b57dfa6c1a6f4d9f7c8e4b5b5"},
	}
	for _, test := range tests {
		t.Run(string(test.kind), func(t *testing.T) {
			secrets := &fakes.Secrets{}
			sink, op := openSink(t, contract.Config{Auth: contract.Auth{Kind: test.kind}}, secrets, s.URL, `{}`)
			wantUnavailable(t, deliver(t, op, fakes.Delivery("1", `{}`)), contract.ReasonCredentialsMissing, "test-secret")
			wantUnavailable(t, sink.Check(t.Context()), contract.ReasonCredentialsMissing, "test-secret")
			secrets.Set(test.secrets)
			if err := deliver(t, op, fakes.Delivery("1", `{}`)); err != nil {
				t.Fatal(err)
			}
			r, body := s.last()
			got := r.Header.Get(test.header)
			if test.kind == contract.AuthHMAC {
				l := &listenAuth{auth: contract.Auth{Kind: contract.AuthHMAC}, header: "X-Signature-256"}
				if p := l.checkBody(&listenCredentials{keys: [][]byte{[]byte("k")}}, r.Header, []byte(body)); p != nil {
					t.Errorf("our own listener refuses the signature: %s", p.detail)
				}
			} else if got != test.value {
				t.Errorf("%s: %s", test.header, got)
			}
		})
	}
}

func TestTargetDown(t *testing.T) {
	s := newTarget(t)
	sink, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, `{"path":"/c?x={id}"}`)
	if err := deliver(t, op, fakes.Delivery("1", `{}`)); err != nil {
		t.Fatal(err)
	}
	s.Server.Close()
	err := deliver(t, op, fakes.Delivery("2", `{}`))
	wantUnavailable(t, err, contract.ReasonConnectionFailed, s.URL+"/c: ")
	wantUnavailable(t, err, contract.ReasonConnectionFailed, "connection refused")
	wantUnavailable(t, sink.Check(t.Context()), contract.ReasonConnectionFailed, s.URL)
	_, op = openSink(t, contract.Config{}, &fakes.Secrets{}, "http://nowhere.invalid", `{}`)
	wantUnavailable(t, deliver(t, op, fakes.Delivery("2", `{}`)), contract.ReasonConnectionFailed, "nowhere.invalid")
}

func TestConnectionBroken(t *testing.T) {
	s := newTarget(t)
	_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, `{}`)
	hangUp := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	s.answer(hangUp)
	wantUnavailable(t, deliver(t, op, fakes.Delivery("1", `{}`)), contract.ReasonConnectionFailed, "broke before the answer")
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		_ = s.Listener.Close()
		hangUp(w, r)
	})
	wantUnavailable(t, deliver(t, op, fakes.Delivery("1", `{}`)), contract.ReasonConnectionFailed, "")
}

func TestSlowAnswers(t *testing.T) {
	s := newTarget(t)
	free := make(chan struct{})
	s.answer(func(http.ResponseWriter, *http.Request) { <-free })
	defer close(free)
	_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, `{}`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var u *sdk.UnavailableError
	err := op.Write(ctx, []*sdk.Delivery{fakes.Delivery("1", `{}`)})[0]
	if err == nil || errors.As(err, &u) || sdk.IsPermanent(err) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("got %v", err)
	}
	// An answer whose body never ends: the status is what counts.
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	if err := deliver(t, op, fakes.Delivery("2", `{}`)); err != nil {
		t.Error(err)
	}
	// A dialler that hangs: the system cannot be reached.
	config := contract.Config{}
	rt := fakes.Runtime(t, &config, &fakes.Secrets{}, nil)
	rt.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	stuck, err := NewSink(rt, []byte(`{"url":"http://10.0.0.1"}`))
	if err != nil {
		t.Fatal(err)
	}
	op, err = stuck.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	wantUnavailable(t, op.Write(ctx, []*sdk.Delivery{fakes.Delivery("1", `{}`)})[0], contract.ReasonConnectionFailed, "http://10.0.0.1")
}

func TestConnectionsAreReused(t *testing.T) {
	s := newTarget(t)
	s.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 20<<10)) })
	_, op := openSink(t, contract.Config{}, &fakes.Secrets{}, s.URL, `{}`)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if err := deliver(t, op, fakes.Delivery(fmt.Sprint(worker, i), `{}`)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.conns.Load(); n > 24 { // the transport may dial one more while another is being freed
		t.Errorf("%d connections for 400 requests, 8 at a time", n)
	}
}

func TestSinkTLS(t *testing.T) {
	ca, err := certs.New("ca")
	if err != nil {
		t.Fatal(err)
	}
	other, err := certs.New("other")
	if err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	pair, err := ca.Pair(tomorrow, "127.0.0.1", "court.example")
	if err != nil {
		t.Fatal(err)
	}
	s := newUnstarted()
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)

	secrets := &fakes.Secrets{}
	config := contract.Config{TLS: &contract.TLS{CA: true, Certificate: true, CAFrom: "Secret court key ca.crt", CertificateFrom: "Secret client-tls"}}
	sink, op := openSink(t, config, secrets, s.URL, `{}`)
	set := func(caPEM string, issuer *certs.Authority) {
		cert, key, err := issuer.Issue(tomorrow, "client")
		if err != nil {
			t.Fatal(err)
		}
		secrets.Set(map[string]string{"ca.crt": caPEM, "tls.crt": cert, "tls.key": key})
	}
	message := fakes.Delivery("1", `{}`)
	wantUnavailable(t, deliver(t, op, message), contract.ReasonCredentialsMissing, "ca.crt")
	set(other.PEM, ca)
	wantUnavailable(t, deliver(t, op, message), contract.ReasonCertificateInvalid, "unknown authority")
	wantUnavailable(t, sink.Check(t.Context()), contract.ReasonCertificateInvalid, "unknown authority")
	set(ca.PEM, other)
	wantUnavailable(t, deliver(t, op, message), contract.ReasonCertificateInvalid, "certificate")
	wantUnavailable(t, sink.Check(t.Context()), contract.ReasonCertificateInvalid, "certificate")
	set("rubbish", ca)
	wantUnavailable(t, deliver(t, op, message), contract.ReasonCertificateInvalid, "Secret court key ca.crt")
	set(ca.PEM, ca)
	if err := deliver(t, op, message); err != nil {
		t.Fatal(err)
	}
	if err := sink.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if r, _ := s.last(); r.ProtoMajor != 2 {
		t.Errorf("got %s, want HTTP/2", r.Proto)
	}
	before := s.conns.Load()
	set(ca.PEM, ca) // a new client certificate: new connections
	if err := deliver(t, op, message); err != nil {
		t.Fatal(err)
	}
	if s.conns.Load() == before {
		t.Error("the connection with the old certificate is still used")
	}
	config.TLS.ServerName = "elsewhere.example"
	sink, op = openSink(t, config, secrets, s.URL, `{}`)
	wantUnavailable(t, deliver(t, op, message), contract.ReasonCertificateInvalid, "elsewhere.example")
	wantUnavailable(t, sink.Check(t.Context()), contract.ReasonCertificateInvalid, "elsewhere.example")

	plain := newTarget(t)
	_, op = openSink(t, contract.Config{}, &fakes.Secrets{}, strings.Replace(plain.URL, "http:", "https:", 1), `{}`)
	wantUnavailable(t, deliver(t, op, message), contract.ReasonConnectionFailed, "plain HTTP")
}

func TestSinkOptions(t *testing.T) {
	config := contract.Config{}
	rt := fakes.Runtime(t, &config, &fakes.Secrets{}, nil)
	for _, options := range []string{`{}`, `{"url":"ftp://x"}`, `{"url":"https://u:p@x"}`, `{"url":"https://x?q"}`, `{"url":"https://x","more":1}`} {
		if _, err := NewSink(rt, []byte(options)); err == nil {
			t.Errorf("%s is taken", options)
		}
	}
	s, err := NewSink(rt, []byte(`{"url":"https://x","request":{"path":"/own"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{`{"method":"GET"}`, `{"path":"cases"}`, `{"path":"/{data."}`, `{"path":"/../x"}`, `{"path":"/a#b"}`, `{"headers":{"X":"{"}}`} {
		if _, err := s.Operation([]byte(request)); err == nil {
			t.Errorf("%s is taken", request)
		}
	}
	op, err := s.Operation(nil)
	if err != nil || op.(*operation).endpoint != "POST https://x/own" {
		t.Errorf("%+v, %v", op, err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "x": 0, "99999999999999": 0, "3600": maxRetryAfter,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
