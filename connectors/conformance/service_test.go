package conformance

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// personSystem answers calls below /api: POST or GET /api/persons/<i> is echoed as {"id":i,"size":n}; /api/hang waits until nobody waits.
type personSystem struct {
	address string
	config  *tls.Config

	mu       sync.Mutex
	password string
	seen     []string
	begun    int
	ended    int
	server   *http.Server
}

func (s *personSystem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, r.URL.Path)
	_, password, _ := r.BasicAuth()
	allowed := password == s.password
	s.mu.Unlock()
	switch {
	case !allowed:
		http.Error(w, "who are you?", http.StatusUnauthorized)
	case r.URL.Path == "/api/hang":
		s.mu.Lock()
		s.begun++
		s.mu.Unlock()
		<-r.Context().Done()
		s.mu.Lock()
		s.ended++
		s.mu.Unlock()
	case strings.HasPrefix(r.URL.Path, "/api/persons/"):
		id, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/api/persons/"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Served", r.Method)
		_, _ = fmt.Fprintf(w, `{"id":%d,"size":%d}`, id, len(body))
	default:
		http.NotFound(w, r)
	}
}

func (s *personSystem) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go func() { _ = server.Serve(tls.NewListener(listener, s.config)) }()
}

func (s *personSystem) stop(*testing.T) {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	_ = server.Close()
}

// calling is a request as the engine gives it.
func calling(method, path string, size int) *sdk.Request {
	r := &sdk.Request{Method: method, Path: path}
	r.ID, r.Type, r.Source, r.Format, r.ContentType = "id", "test.event", "/metip/test/source", sdk.FormatJSON, "application/json"
	if size > 0 {
		r.Data = []byte(`{"pad":"` + strings.Repeat("x", size) + `"}`)
	}
	return r
}

func newHTTPService(t *testing.T) *ServiceHarness {
	t.Helper()
	ca, err := certs.New("court CA")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := &personSystem{address: "127.0.0.1:0", password: "first-password", config: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return &ServiceHarness{
		System: "http", Options: fakes.JSON(t, map[string]any{"url": "https://" + s.address + "/api"}),
		Config:           contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, CAFrom: "secret court-ca key ca.crt"}},
		Secrets:          map[string]string{"username": "bus", "password": "first-password", "ca.crt": ca.PEM},
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:         "https://" + s.address,
		Good: func(i, size int) *sdk.Request {
			method := http.MethodGet
			if size > 0 {
				method = http.MethodPost
			}
			return calling(method, "/persons/"+strconv.Itoa(i), size)
		},
		Answers: func(i int, a *sdk.Answer) bool {
			var got struct{ ID int }
			return a.Status == http.StatusOK && json.Unmarshal(a.Data, &got) == nil && got.ID == i && a.Format == sdk.FormatJSON && len(a.Header["x-served"]) == 1
		},
		Hang: func() *sdk.Request { return calling(http.MethodGet, "/hang", 0) },
		Begun: func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.begun
		},
		Ended: func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.ended
		},
		Stop: s.stop, Start: s.start,
		Rotate: func(*testing.T) map[string]string {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.password = "second-password"
			return map[string]string{"password": "second-password"}
		},
		Seen: func() []string {
			s.mu.Lock()
			defer s.mu.Unlock()
			return append([]string(nil), s.seen...)
		},
	}
}

func newStubService(t *testing.T) *ServiceHarness {
	t.Helper()
	return &ServiceHarness{
		System: "stub",
		Options: fakes.JSON(t, map[string]any{"examples": []any{
			map[string]any{"when": `headers.path == "/hang"`, "latency": map[string]any{"min": "5m"}},
			map[string]any{"when": `headers.path.startsWith("/persons/")`, "jq": `{path: $message.headers.path}`},
		}}),
		Good: func(i, size int) *sdk.Request { return calling(http.MethodPost, "/persons/"+strconv.Itoa(i), size) },
		Answers: func(i int, a *sdk.Answer) bool {
			return a.Status == http.StatusOK && string(a.Data) == fmt.Sprintf(`{"path":"/persons/%d"}`, i)
		},
		Hang: func() *sdk.Request { return calling(http.MethodGet, "/hang", 0) },
	}
}

func TestHTTPService(t *testing.T) { Services(t, newHTTPService) }

func TestStubService(t *testing.T) { Services(t, newStubService) }
