package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func openService(t *testing.T, config contract.Config, secrets *fakes.Secrets, options map[string]any) sdk.Service {
	t.Helper()
	s, err := NewService(fakes.Runtime(t, &config, secrets, nil), fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func call(t *testing.T, s sdk.Service, r *sdk.Request) (*sdk.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.Call(ctx, r)
}

func TestServiceRequest(t *testing.T) {
	s := newTarget(t)
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{contract.FileUsername: "bus", contract.FilePassword: "pw"})
	service := openService(t, contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}, secrets, map[string]any{
		"url": s.URL + "/api/", "headers": map[string]string{"x-Station": "7", "Accept": "application/json"},
	})
	r := &sdk.Request{Method: "PATCH", Path: "/persons/M%C3%BCller%2Fx", Query: "b=%20&a=1", Header: map[string][]string{
		"accept": {"text/html"}, "x-two": {"1", "2"}, "user-agent": {"curl"}, "authorization": {"Bearer stolen"}, "connection": {"x-two"}, "transfer-encoding": {"chunked"}, "content-length": {"1"},
	}}
	r.Headers = map[string]string{"traceparent": "00-x", "unit": "7"}
	r.ContentType, r.Data = "application/json", []byte(`{"a":1}`)
	s.answer(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/problem+json")
		h["Set-Cookie"] = []string{"a=1", "b=2"}
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Etag", "x")
		h["Date"] = nil
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"x":1}`)
	})
	a, err := call(t, service, r)
	if err != nil {
		t.Fatal(err)
	}
	got, body := s.last()
	if got.Method+" "+got.RequestURI != "PATCH /api/persons/M%C3%BCller%2Fx?b=%20&a=1" || body != `{"a":1}` {
		t.Errorf("%s %s %q", got.Method, got.RequestURI, body)
	}
	timeout := got.Header.Get(headerTimeoutMS)
	got.Header.Del(headerTimeoutMS)
	want := http.Header{
		"Accept": {"application/json"}, "X-Two": {"1", "2"}, "X-Station": {"7"}, "User-Agent": {"curl"}, "Authorization": {"Basic YnVzOnB3"}, "Content-Type": {"application/json"},
		"Content-Length": {"7"}, "Traceparent": {"00-x"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" || timeout == "" {
		t.Error(diff, timeout)
	}
	if a.Status != 409 || string(a.Data) != `{"x":1}` || a.ContentType != "application/problem+json" || a.Format != sdk.FormatJSON || a.CacheFor >= 0 {
		t.Errorf("%+v", a)
	}
	if diff := cmp.Diff(map[string][]string{"set-cookie": {"a=1", "b=2"}, "etag": {"x"}}, a.Header); diff != "" {
		t.Error(diff)
	}
}

func TestServiceTargets(t *testing.T) {
	s := newTarget(t)
	for _, c := range []struct{ base, path, query, want string }{
		{"", "", "", "/"}, {"", "/", "", "/"}, {"/api", "", "", "/api"}, {"/api", "/", "", "/api/"}, {"/api/", "", "", "/api/"}, {"/api/", "/x", "", "/api/x"},
		{"/api", "//x", "", "/api//x"}, {"/api", "/a%2Fb", "c=%3D", "/api/a%2Fb?c=%3D"},
	} {
		service := openService(t, contract.Config{}, &fakes.Secrets{}, map[string]any{"url": s.URL + c.base})
		if _, err := call(t, service, &sdk.Request{Method: "GET", Path: c.path, Query: c.query}); err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if r, _ := s.last(); r.RequestURI != c.want {
			t.Errorf("%+v: %s", c, r.RequestURI)
		}
	}
	service := openService(t, contract.Config{}, &fakes.Secrets{}, map[string]any{"url": s.URL + "/api"})
	before := s.count()
	for _, r := range []*sdk.Request{
		{Method: "GET", Path: "/../x"}, {Method: "GET", Path: "@evil.example/x"}, {Method: "GET", Path: ":80@evil.example"}, {Method: "GET", Path: "/%2e%2e/x"},
		{Method: "GET", Path: "/x", Query: "a b"}, {Method: "GET", Path: "/x#y"}, {Method: "GET\r\nX: y", Path: "/x"}, {Method: "CONNECT", Path: "/x"}, {Method: "TRACE", Path: "/x"},
		{Method: "GET", Path: "/x", Header: map[string][]string{"a": {"b\r\nc: d"}}}, {Method: "GET", Path: "/x", Header: map[string][]string{"a b": {"c"}}}, {Method: "GET", Path: "/%zz"},
	} {
		var refused *sdk.CallError
		if _, err := call(t, service, r); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if s.count() != before {
		t.Error("some of these reached the system")
	}
}

func TestServiceAnswers(t *testing.T) {
	s := newTarget(t)
	service := openService(t, contract.Config{}, &fakes.Secrets{}, map[string]any{"url": s.URL})
	get := &sdk.Request{Method: "GET", Path: "/"}
	// Redirects are the caller's to follow, wherever they lead.
	s.answerStatus(http.StatusFound, "Location", "http://169.254.169.254/latest")
	if a, err := call(t, service, get); err != nil || a.Status != 302 || a.Header["location"][0] != "http://169.254.169.254/latest" {
		t.Error(a, err)
	}
	// Without credentials of our own, 401 is an answer.
	s.answerStatus(http.StatusUnauthorized, "Www-Authenticate", "Basic")
	if a, err := call(t, service, get); err != nil || a.Status != 401 {
		t.Error(a, err)
	}
	s.answer(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1234") })
	if a, err := call(t, service, &sdk.Request{Method: "HEAD"}); err != nil || a.Status != 200 || a.Header[contentLength][0] != "1234" || len(a.Data) != 0 {
		t.Error(a, err)
	}
	// Answers of known and of unknown length, of the largest size and beyond; room is asked for before they are read.
	for _, known := range []bool{true, false} {
		for _, size := range []int{0, 1, smallAnswer - 1, smallAnswer, smallAnswer + 1, contract.MaxMessageSize, contract.MaxMessageSize + 1} {
			s.answer(func(w http.ResponseWriter, _ *http.Request) {
				if !known {
					w.(http.Flusher).Flush()
				}
				_, _ = w.Write(make([]byte, size))
			})
			if known && size > 1000 {
				s.answer(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", strconv.Itoa(size))
					_, _ = w.Write(make([]byte, size))
				})
			}
			reserved := 0
			r := &sdk.Request{Method: "GET", Reserve: func(_ context.Context, n int) error { reserved += n; return nil }}
			a, err := call(t, service, r)
			var large *sdk.CallError
			switch {
			case size > contract.MaxMessageSize:
				if !errors.As(err, &large) || large.Status != http.StatusBadGateway {
					t.Errorf("%d bytes: %v", size, err)
				}
			case err != nil || len(a.Data) != size:
				t.Errorf("%d bytes, known %v: %v", size, known, err)
			case size >= smallAnswer && reserved < size:
				t.Errorf("%d bytes, known %v: room for %d", size, known, reserved)
			}
		}
	}
	// An answer that breaks off is none.
	s.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	})
	var unavailable *sdk.UnavailableError
	if _, err := call(t, service, get); err == nil || errors.As(err, &unavailable) {
		t.Error(err)
	}
	// A connection that breaks after the request has been sent may have had its effect.
	s.answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := call(t, service, &sdk.Request{Method: "POST"}); err == nil || errors.As(err, &unavailable) {
		t.Error(err)
	}
}

func TestServiceRefusedCredentials(t *testing.T) {
	s := newTarget(t)
	secrets := &fakes.Secrets{}
	service := openService(t, contract.Config{Auth: contract.Auth{Kind: contract.AuthBearer}}, secrets, map[string]any{"url": s.URL})
	get := &sdk.Request{Method: "GET"}
	_, err := call(t, service, get)
	wantUnavailable(t, err, contract.ReasonCredentialsMissing, "test-secret")
	secrets.Set(map[string]string{contract.FileToken: "a-secret"})
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not "+r.Header.Get("Authorization"), http.StatusUnauthorized)
	})
	_, err = call(t, service, get)
	wantUnavailable(t, err, contract.ReasonAuthenticationFailed, "401 Unauthorized")
	if strings.Contains(err.Error(), "a-secret") {
		t.Error("the error repeats the secret:", err)
	}
	s.answerStatus(http.StatusForbidden)
	if a, err := call(t, service, get); err != nil || a.Status != 403 {
		t.Error("403 may be the caller's own:", a, err)
	}
}

func TestServiceCheck(t *testing.T) {
	s := newTarget(t)
	plain := openService(t, contract.Config{}, &fakes.Secrets{}, map[string]any{"url": s.URL + "/api"})
	healthy := openService(t, contract.Config{}, &fakes.Secrets{}, map[string]any{"url": s.URL + "/api", "healthPath": "/health?deep=1"})
	if err := plain.Check(t.Context()); err != nil || s.count() != 0 {
		t.Error(err, s.count())
	}
	for _, status := range []int{200, 204, 302} {
		s.answerStatus(status)
		if err := healthy.Check(t.Context()); err != nil {
			t.Error(status, err)
		}
	}
	if r, _ := s.last(); r.Method+" "+r.RequestURI != "GET /health?deep=1" {
		t.Error(r.Method, r.RequestURI)
	}
	s.answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "db down", http.StatusInternalServerError) })
	wantUnavailable(t, healthy.Check(t.Context()), contract.ReasonSystemError, "500 Internal Server Error: db down")
	s.answerStatus(403)
	wantUnavailable(t, healthy.Check(t.Context()), contract.ReasonAuthenticationFailed, "403")
	s.Close()
	wantUnavailable(t, healthy.Check(t.Context()), contract.ReasonConnectionFailed, s.URL)
	wantUnavailable(t, plain.Check(t.Context()), contract.ReasonConnectionFailed, s.URL)
	_, err := call(t, plain, &sdk.Request{Method: "GET"})
	wantUnavailable(t, err, contract.ReasonConnectionFailed, s.URL)
}

func TestServiceReusesConnections(t *testing.T) {
	s := newTarget(t)
	s.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 200<<10)) })
	service := openService(t, contract.Config{}, &fakes.Secrets{}, map[string]any{"url": s.URL})
	for range 20 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := call(t, service, &sdk.Request{Method: "GET"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if n := s.conns.Load(); n > 12 {
		t.Errorf("%d connections for 80 calls, four at a time", n)
	}
}

func TestServiceOptions(t *testing.T) {
	for _, options := range []string{
		`{}`, `{"url":"ftp://x"}`, `{"url":"http://a:b@x"}`, `{"url":"http://x?y=1"}`, `{"url":"http://x","healthPath":"x"}`, `{"url":"http://x","headers":{"Host":"y"}}`,
		`{"url":"http://x","headers":{"Authorization":"y"}}`, `{"url":"http://x","headers":{"A b":"y"}}`, `{"url":"http://x","headers":{"A":"y\n"}}`, `{"url":"http://x","path":"/"}`,
	} {
		if _, err := NewService(fakes.Runtime(t, &contract.Config{}, &fakes.Secrets{}, nil), []byte(options)); err == nil {
			t.Errorf("%s is taken", options)
		}
	}
}

func TestCacheFor(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"X", "y", 0}, {"Cache-Control", "public, max-age=60", time.Minute}, {"Cache-Control", "max-age=60, s-maxage=\"30\"", 30 * time.Second}, {"Cache-Control", "no-store", -1},
		{"Cache-Control", "private, max-age=60", -1}, {"Cache-Control", "max-age=0", -1}, {"Cache-Control", "max-age=x", -1}, {"Set-Cookie", "a=b", -1}, {"Vary", "Accept, accept-encoding", 0},
		{"Vary", "*", -1}, {"Vary", "Accept, X-User", -1}, {"Cache-Control", "max-age=99999999999999999999", -1},
	} {
		if got := cacheFor(http.Header{c.name: {c.value}}); got != c.want {
			t.Errorf("%s: %s: %s, want %s", c.name, c.value, got, c.want)
		}
	}
}
