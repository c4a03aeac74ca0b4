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
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// caseSystem is an HTTP system as the documentation asks for: it knows an Idempotency-Key again. What it has stored outlives a crash.
type caseSystem struct {
	address string
	config  *tls.Config

	mu       sync.Mutex
	password string
	keys     map[string]bool
	effects  map[int]int
	server   *http.Server
	headers  map[int]http.Header
	// slow is held while requests are to wait.
	slow sync.RWMutex
}

func (s *caseSystem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.slow.RLock()
	defer s.slow.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, password, ok := r.BasicAuth(); !ok || password != s.password {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	var record struct {
		ID int     `json:"id"`
		V  *string `json:"v"`
	}
	if err := json.Unmarshal(body, &record); err != nil || record.V == nil || r.URL.Path != "/api/cases/"+strconv.Itoa(record.ID) {
		http.Error(w, "v is missing", http.StatusUnprocessableEntity)
		return
	}
	if key := r.Header.Get("Idempotency-Key"); !s.keys[key] {
		s.keys[key] = true
		s.effects[record.ID]++
		s.headers[record.ID] = r.Header
	}
	w.WriteHeader(http.StatusCreated)
}

func (s *caseSystem) start(t *testing.T) {
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

func (s *caseSystem) stop() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	_ = server.Close()
}

func newHTTP(t *testing.T) *SinkHarness {
	t.Helper()
	ca, err := certs.New("court CA")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := &caseSystem{
		address: "127.0.0.1:0", password: "first-password", keys: map[string]bool{}, effects: map[int]int{}, headers: map[int]http.Header{},
		config: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return &SinkHarness{
		System: "http",
		Options: fakes.JSON(t, map[string]any{
			"url":     "https://" + s.address + "/api",
			"request": map[string]any{"method": "PUT", "path": "/cases/{data.id}"},
		}),
		Config:           contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, Certificate: true, CAFrom: "secret court-ca key ca.crt"}},
		Secrets:          merged(clientCertificate(t, ca), map[string]string{"username": "bus", "password": "first-password", "ca.crt": ca.PEM}),
		WrongCertificate: clientCertificate(t, mustCA(t)),
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:         "https://" + s.address,
		Good:             message,
		Slow:             func(*testing.T) func() { s.slow.Lock(); return s.slow.Unlock },
		Mapped:           s.mapped,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d}`, i))
		},
		Stop:  func(*testing.T) { s.stop() },
		Start: s.start,
		Effects: func(*testing.T) map[int]int {
			s.mu.Lock()
			defer s.mu.Unlock()
			effects := make(map[int]int, len(s.effects))
			for id, n := range s.effects {
				effects[id] = n
			}
			return effects
		},
		Rotate: func(*testing.T) map[string]string {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.password = "second-password"
			return map[string]string{"password": "second-password"}
		},
	}
}

// clientCertificate of an authority, as the mounted files.
func clientCertificate(t *testing.T, ca *certs.Authority) map[string]string {
	t.Helper()
	cert, key, err := ca.Issue(time.Now().Add(time.Hour), "client")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{contract.FileTLSCert: cert, contract.FileTLSKey: key}
}

func (s *caseSystem) mapped(*testing.T) (*sdk.Delivery, func(t *testing.T)) {
	d := message(1, 10)
	d.Subject, d.Headers = "person/17", map[string]string{contract.HeaderTraceParent: traceParent, contract.HeaderTraceState: "a=b", "unit": "7"}
	return d, func(t *testing.T) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, want := range map[string]string{
			"Ce-Id": d.ID, "Ce-Source": d.Source, "Ce-Type": d.Type, "Ce-Subject": d.Subject, "Ce-Time": "2026-01-02T03:04:05Z", "Ce-Unit": "7",
			"Traceparent": traceParent, "Tracestate": "a=b", "Content-Type": "application/json",
		} {
			if got := s.headers[1].Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
}

func TestHTTPSink(t *testing.T) { Sinks(t, newHTTP) }
