package custom

import (
	"context"
	"encoding/json"
	"errors"
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

const within = 10 * time.Second

// serve a container at an address of the loopback.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func says(status int, answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}
}

func runtime(t *testing.T) sdk.Runtime {
	t.Helper()
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{contract.FileUsername: "bus", contract.FilePassword: "a-secret-word"})
	rt := fakes.Runtime(t, &contract.Config{
		Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "test"},
	}, secrets, nil)
	rt.Dial = func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("the engine refuses the loopback")
	}
	return rt
}

func TestWhatTheContainerSaysOfItsSystem(t *testing.T) {
	for _, c := range []struct {
		name   string
		h      http.HandlerFunc
		reason string
		words  string
	}{
		{"it works", says(204, ""), "", ""},
		{"reason and words", says(503, `{"reason":"AuthenticationFailed","detail":"the user is unknown"}`), contract.ReasonAuthenticationFailed, "the custom container answers 503: the user is unknown"},
		{"no reason", says(500, `{"detail":"the disk is full"}`), contract.ReasonSystemError, "the disk is full"},
		{"a reason of its own", says(503, `{"reason":"Tired","detail":"tomorrow"}`), contract.ReasonSystemError, "tomorrow"},
		{"no problem", says(500, "Traceback\n  line 1"), contract.ReasonSystemError, "Traceback line 1"},
		{"nothing", says(404, ""), contract.ReasonSystemError, "it does not say why"},
		{"a password", says(503, `{"reason":"AuthenticationFailed","detail":"bus:a-secret-word is wrong"}`), contract.ReasonAuthenticationFailed, "bus:*** is wrong"},
		{"too many words", says(503, strings.Repeat("no ", 100000)), contract.ReasonSystemError, "no no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewSink(runtime(t), fakes.JSON(t, map[string]any{"container": serve(t, c.h), "image": "x"}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			wantReason(t, s.Check(t.Context()), c.reason, c.words)
		})
	}
}

func wantReason(t *testing.T, err error, reason, words string) {
	t.Helper()
	if reason == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	var u *sdk.UnavailableError
	if !errors.As(err, &u) || u.Reason != reason || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "a-secret-word") || len(err.Error()) > 500 {
		t.Errorf("%v, want %s with %q", err, reason, words)
	}
}

func TestAContainerThatIsNotThere(t *testing.T) {
	options := fakes.JSON(t, map[string]any{"container": free(t), "image": "x"})
	s, err := NewSink(runtime(t), options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range append(op.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", `{}`)}), s.Check(t.Context())) {
		wantReason(t, err, contract.ReasonConnectionFailed, "nothing listens there")
	}
}

func TestWhatBecomesOfAMessage(t *testing.T) {
	for _, c := range []struct {
		name      string
		h         http.HandlerFunc
		permanent bool
		reason    string
		words     string
	}{
		{"delivered", says(202, ""), false, "", ""},
		{"refused", says(422, `{"detail":"no such person"}`), true, "", "the custom container answers 422: no such person"},
		{"not now", says(500, `{"detail":"busy"}`), false, "", "busy"},
		{"wrong password", says(503, `{"reason":"AuthenticationFailed","detail":"a-secret-word is wrong"}`), false, contract.ReasonAuthenticationFailed, "*** is wrong"},
		{"down", says(503, `{"detail":"no route to host"}`), false, contract.ReasonConnectionFailed, "no route to host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var path, header string
			h := func(w http.ResponseWriter, r *http.Request) {
				path, header = r.URL.RequestURI(), r.Header.Get("X-Unit")
				c.h(w, r)
			}
			s, err := NewSink(runtime(t), fakes.JSON(t, map[string]any{
				"container": serve(t, h), "image": "x", "request": map[string]any{"path": "/cases/{data.id}?force=true", "headers": map[string]string{"X-Unit": "{data.unit}"}},
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			op, err := s.Operation(nil)
			if err != nil {
				t.Fatal(err)
			}
			err = op.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", `{"id":7,"unit":"north"}`)})[0]
			if path != "/messages/cases/7?force=true" || header != "north" {
				t.Errorf("the container was asked %s with %q", path, header)
			}
			switch {
			case c.words == "":
				if err != nil {
					t.Error(err)
				}
			case c.reason != "":
				wantReason(t, err, c.reason, c.words)
			default:
				var u *sdk.UnavailableError
				if err == nil || sdk.IsPermanent(err) != c.permanent || errors.As(err, &u) || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v, want permanent %v with %q", err, c.permanent, c.words)
				}
			}
		})
	}
}

func TestService(t *testing.T) {
	s, err := NewService(runtime(t), fakes.JSON(t, map[string]any{"image": "x", "container": serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI())
	})}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	a, err := s.Call(t.Context(), &sdk.Request{Method: http.MethodGet, Path: "/persons/7", Query: "all=1"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if a.Status != http.StatusOK || string(a.Data) != "GET /calls/persons/7?all=1" {
		t.Errorf("%d %s", a.Status, a.Data)
	}
}

// kept is a position in memory, which another pod can move.
type kept struct {
	mu       sync.Mutex
	document []byte
	err      error
}

func (k *kept) Load(context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.document, nil
}

func (k *kept) Store(_ context.Context, document []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.document = document
	}
	return k.err
}

func TestSource(t *testing.T) {
	bus, position, rt := free(t), &kept{}, runtime(t)
	rt.Position = position
	var down sync.Mutex
	answer := says(503, `{"reason":"SystemError","detail":"the table is missing"}`)
	container := serve(t, func(w http.ResponseWriter, r *http.Request) {
		down.Lock()
		defer down.Unlock()
		answer(w, r)
	})
	s, err := NewSource(rt, fakes.JSON(t, map[string]any{"bus": bus, "container": container, "image": "x", "env": []any{}}))
	if err != nil {
		t.Fatal(err)
	}
	publisher, state := &fakes.Publisher{}, &fakes.Reporter{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, publisher, state) }()
	fakes.Eventually(t, within, "the state is the container's", func() bool {
		err, _ := state.State()
		var u *sdk.UnavailableError
		return errors.As(err, &u) && u.Reason == contract.ReasonSystemError && strings.Contains(err.Error(), "the table is missing")
	})
	down.Lock()
	answer = says(204, "")
	down.Unlock()
	fakes.Eventually(t, within, "the state is good", func() bool { err, reported := state.State(); return reported && err == nil })

	ask := func(method, path, body string, headers ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+bus+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	want := func(want int, method, path, body string, headers ...string) string {
		t.Helper()
		status, text := ask(method, path, body, headers...)
		if status != want {
			t.Errorf("%s %s: %d %s, want %d", method, path, status, text, want)
		}
		return text
	}
	want(202, "POST", "/messages", `{"id":1}`, "Idempotency-Key", "a", "Content-Type", "application/json")
	want(202, "POST", "/messages", `{"id":1}`, "Idempotency-Key", "a", "Content-Type", "application/json")
	want(400, "POST", "/messages", `no JSON`, "Idempotency-Key", "b", "Content-Type", "application/json")
	want(404, "POST", "/elsewhere", `{}`)
	if stored := publisher.Stored(); len(stored) != 1 || stored[0].ID != "a" {
		t.Errorf("stored are %v", stored)
	}
	want(204, "GET", "/position", "")
	want(204, "PUT", "/position", "line 7")
	if got := want(200, "GET", "/position", ""); got != "line 7" {
		t.Errorf("the position is %q", got)
	}
	want(413, "PUT", "/position", strings.Repeat("x", contract.MaxPosition+1))
	want(405, "DELETE", "/position", "")
	position.err = sdk.ErrMoved
	want(409, "PUT", "/position", "line 8")
	position.err = errors.New("the broker is away")
	if got := want(503, "PUT", "/position", "line 8"); !strings.Contains(got, "the broker is away") {
		t.Errorf("the answer is %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOptionsThatCanNeverWork(t *testing.T) {
	for _, raw := range []string{`{}`, `{"container":"10.0.0.1:9411"}`, `{"container":"127.0.0.1:1","bus":"0.0.0.0:9410"}`, `{"container":"127.0.0.1:1","bus":"127.0.0.1:2","colour":1}`, `7`} {
		if _, err := NewSource(runtime(t), json.RawMessage(raw)); err == nil {
			t.Errorf("a source takes %s", raw)
		}
	}
	for _, raw := range []string{`{}`, `{"container":"127.0.0.1:1","request":{"path":"x"}}`, `{"container":"127.0.0.1:1","request":{"method":"GET"}}`} {
		if s, err := NewSink(runtime(t), json.RawMessage(raw)); err == nil {
			if _, err = s.Operation(nil); err == nil {
				t.Errorf("a sink takes %s", raw)
			}
		}
	}
	if _, err := NewService(runtime(t), json.RawMessage(`{"container":"127.0.0.1:1","request":{}}`)); err == nil {
		t.Error("a service takes a request")
	}
}
