package http

import (
	"context"
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

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// exchanging is a source with exchange RequestReply that runs.
func exchanging(t *testing.T, config contract.Config, options string) (*listening, *fakes.Caller) {
	t.Helper()
	caller := &fakes.Caller{}
	return exchangingWith(t, config, options, caller), caller
}

func exchangingWith(t *testing.T, config contract.Config, options string, caller sdk.Caller) *listening {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config.Source == nil {
		config.Source = &contract.Source{Format: sdk.FormatJSON, EventType: "test.event"}
	}
	l := &listening{bus: &fakes.Publisher{}, state: &fakes.Reporter{}, secrets: &fakes.Secrets{}}
	rt := fakes.Runtime(t, &config, l.secrets, listener)
	rt.Caller = caller
	s, err := NewSource(rt, []byte(options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l.bus, l.state) }()
	l.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = l.stop() })
	l.url = "http://" + listener.Addr().String()
	l.client = &http.Client{
		Transport: &http.Transport{DisableCompression: true}, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(l.client.CloseIdleConnections)
	return l
}

const requestReply = `{"path":"/persons","exchange":"RequestReply"}`

func TestExchangeCarriesTheRequest(t *testing.T) {
	config := contract.Config{Auth: contract.Auth{Kind: contract.AuthHMAC, Header: "X-Hub-Signature"}}
	l, caller := exchanging(t, config, requestReply)
	l.secrets.Set(map[string]string{contract.FileHMACKey: "key"})
	body := `{"a":1}`
	header := map[string]string{
		"X-Hub-Signature": "sha256=" + hexSignature("key", body), "Content-Type": "application/json", "Accept": "text/html", "X-Name": "a, b",
		"Authorization": "Bearer secret", "Cookie": "session=1", "Proxy-Authorization": "Basic x", "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4",
		"Connection": "keep-alive, X-Hop", "X-Hop": "1", "Te": "trailers", "Keep-Alive": "timeout=5", "Accept-Encoding": "gzip", "If-None-Match": `"x"`,
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate": "a=b", "User-Agent": "curl/8", "Metip-Timeout-Ms": "5000",
	}
	if a := l.send(t, "PATCH", "/persons/M%C3%BCller%2Fx?b=%20&a=1", header, body); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r := caller.Requests()[0]
	if r.Method != http.MethodPatch || r.Path != "/M%C3%BCller%2Fx" || r.Query != "b=%20&a=1" || string(r.Data) != body || r.ContentType != "application/json" || r.ID == "" {
		t.Errorf("%+v", r)
	}
	want := map[string][]string{"accept": {"text/html"}, "x-name": {"a, b"}, "if-none-match": {`"x"`}, "user-agent": {"curl/8"}}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"traceparent": header["Traceparent"], "tracestate": "a=b"}, r.Headers); diff != "" {
		t.Error(diff)
	}
}

func hexSignature(key, body string) string {
	return fmt.Sprintf("%x", signature([]byte(key), []byte(body)))
}

func TestExchangePaths(t *testing.T) {
	l, caller := exchanging(t, contract.Config{}, requestReply)
	for path, want := range map[string]string{
		"/persons": "", "/persons/": "/", "/persons//a": "//a", "/persons/a;b=1": "/a;b=1", "/persons/%41": "/%41", "/persons/a...b": "/a...b",
	} {
		before := len(caller.Requests())
		if a := l.send(t, "GET", path, nil, ""); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
			continue
		}
		if got := caller.Requests()[before].Path; got != want {
			t.Errorf("%s is %q below, want %q", path, got, want)
		}
	}
	root, all := exchanging(t, contract.Config{}, `{"exchange":"RequestReply"}`)
	for _, path := range []string{"/", "/a"} {
		before := len(all.Requests())
		root.send(t, "GET", path, nil, "")
		if got := all.Requests()[before].Path; got != path {
			t.Errorf("%s is %q below the root", path, got)
		}
	}
	seen := len(caller.Requests())
	for path, status := range map[string]string{
		"/": "404", "/person": "404", "/personsx": "404", "/Persons": "404",
		"/persons/../x": "400", "/persons/a/./b": "400", "/persons/%2e%2E/x": "400", "/persons/a%2f..%2fb": "400", "/persons/..%5cx": "400", "/persons/..;/x": "400", "/persons/%00": "400",
	} {
		raw := rawRequest(t, l, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(raw, "HTTP/1.1 "+status) || status == "400" && !strings.Contains(raw, "Metip-Hop: test/connector") {
			t.Errorf("%s: %.200s, want %s", path, raw, status)
		}
	}
	if n := len(caller.Requests()); n != seen {
		t.Errorf("%d of these were called", n-seen)
	}
}

func rawRequest(t *testing.T, l *listening, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestExchangeCarriesTheAnswer(t *testing.T) {
	l, caller := exchanging(t, contract.Config{}, requestReply)
	reply := func(status int, contentType, body string, header map[string][]string) *sdk.Answer {
		a := &sdk.Answer{Status: status, Header: header}
		a.ContentType, a.Data = contentType, []byte(body)
		return a
	}
	hop := reply(504, "application/problem+json", `{"hop":"ns/svc"}`, nil)
	hop.Hop = "ns/svc"
	for _, c := range []struct {
		name, method string
		give         *sdk.Answer
		status       int
		header       map[string]string
		absent       []string
		body         string
	}{
		{name: "as it is", method: "GET", give: reply(201, "text/plain; charset=x", "hello", map[string][]string{"location": {"/x"}, "etag": {`"1"`}}), status: 201,
			header: map[string]string{"Content-Type": "text/plain; charset=x", "Location": "/x", "Etag": `"1"`, "Content-Length": "5"}, absent: []string{headerHop}, body: "hello"},
		{name: "connection's own headers", method: "GET", give: reply(200, "", "x", map[string][]string{"connection": {"close"}, "transfer-encoding": {"gzip"}, "content-length": {"99"}, "alt-svc": {"h3"}, "upgrade": {"x"}}), status: 200,
			header: map[string]string{"Content-Length": "1"}, absent: []string{"Alt-Svc", "Upgrade", "Content-Type"}, body: "x"},
		{name: "redirect", method: "GET", give: reply(302, "", "", map[string][]string{"location": {"http://elsewhere/"}}), status: 302, header: map[string]string{"Location": "http://elsewhere/"}},
		{name: "error of the system", method: "PUT", give: reply(503, "application/json", `{"e":1}`, nil), status: 503, absent: []string{headerHop}, body: `{"e":1}`},
		{name: "error of a hop", method: "PUT", give: hop, status: 504, header: map[string]string{headerHop: "ns/svc", "Content-Type": "application/problem+json"}, body: `{"hop":"ns/svc"}`},
		{name: "no content", method: "DELETE", give: reply(204, "", "", nil), status: 204, absent: []string{"Content-Length"}},
		{name: "not modified", method: "GET", give: reply(304, "", "", map[string][]string{"etag": {"x"}}), status: 304, header: map[string]string{"Etag": "x"}},
		{name: "head", method: "HEAD", give: reply(200, "text/plain", "", map[string][]string{"content-length": {"1234"}}), status: 200, header: map[string]string{"Content-Length": "1234"}},
		{name: "two cookies", method: "GET", give: reply(200, "", "", map[string][]string{"set-cookie": {"a=1", "b=2"}}), status: 200, header: map[string]string{"Set-Cookie": "a=1"}},
	} {
		caller.Respond(func(context.Context, *sdk.Request) *sdk.Answer { return c.give })
		a := l.send(t, c.method, "/persons", nil, "")
		if a.status != c.status || a.body != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.name, a.status, a.body, c.status, c.body)
		}
		for name, want := range c.header {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, got, want)
			}
		}
		for _, name := range c.absent {
			if values, is := a.header[name]; is {
				t.Errorf("%s: %s is %q", c.name, name, values)
			}
		}
		if c.name == "two cookies" && len(a.header["Set-Cookie"]) != 2 {
			t.Error(a.header)
		}
	}
}

func TestExchangeRefuses(t *testing.T) {
	config := contract.Config{Auth: contract.Auth{Kind: contract.AuthBearer}}
	l, caller := exchanging(t, config, `{"path":"/persons","exchange":"RequestReply","maxBodySize":100}`)
	l.secrets.Set(map[string]string{contract.FileToken: "token"})
	good := map[string]string{"Authorization": "Bearer token"}
	with := func(name, value string) map[string]string {
		return map[string]string{"Authorization": "Bearer token", name: value}
	}
	for _, c := range []struct {
		method string
		header map[string]string
		body   string
		status int
	}{
		{"GET", nil, "", 401},
		{"GET", map[string]string{"Authorization": "Bearer other"}, "", 401},
		{"TRACE", good, "", 405},
		{"POST", good, "{", 400},
		{"POST", good, strings.Repeat(" ", 101), 413},
		{"POST", with("Content-Encoding", "gzip"), "{}", 415},
		{"POST", with("Content-Type", "application/json; charset=utf-16"), "{}", 415},
	} {
		a := l.send(t, c.method, "/persons", c.header, c.body)
		var p problemBody
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != c.status || p.Hop != "test/connector" || a.header.Get(headerHop) != p.Hop {
			t.Errorf("%+v: %d %s %v", c, a.status, a.body, err)
		}
	}
	if n := len(caller.Requests()); n != 0 {
		t.Errorf("%d were called", n)
	}
	if a := l.send(t, "POST", "/persons", good, "{}"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	unrouted := exchangingWith(t, contract.Config{}, requestReply, nil)
	if a := unrouted.send(t, "GET", "/persons", nil, ""); a.status != 404 || !strings.Contains(a.body, "no Route") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestExchangeEndsWithItsCaller(t *testing.T) {
	l, caller := exchanging(t, contract.Config{}, requestReply)
	begun, ended := make(chan time.Duration, 2), make(chan error, 2)
	caller.Respond(func(ctx context.Context, _ *sdk.Request) *sdk.Answer {
		left := time.Duration(0)
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		begun <- left
		<-ctx.Done()
		ended <- ctx.Err()
		return &sdk.Answer{Status: 504, Hop: "x/y"}
	})
	// The caller goes.
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+"/persons", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		response, err := l.client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
	}()
	<-begun
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the call goes on without its caller")
	}
	// The caller says how long it waits.
	if a := l.send(t, "GET", "/persons", map[string]string{headerTimeoutMS: "300"}, ""); a.status != 504 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if left := <-begun; left <= 0 || left > 300*time.Millisecond {
		t.Errorf("%s are left", left)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
