package conformance

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// changeSystem is an HTTP system that lists what has changed since a time, that time included, a page at a time.
type changeSystem struct {
	address string
	config  *tls.Config

	mu       sync.Mutex
	password string
	changes  []change
	server   *http.Server
}

type change struct {
	ID int    `json:"id"`
	At string `json:"at"`
	V  filler `json:"v"`
}

// filler is a text of so many bytes, which the system need not keep.
type filler int

func (f filler) MarshalText() ([]byte, error) { return bytes.Repeat([]byte("x"), int(f)), nil }

const (
	changesPage  = 100
	changesBytes = contract.MaxMessageSize
)

func (s *changeSystem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, password, ok := r.BasicAuth(); !ok || password != s.password {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	if s.changes == nil {
		http.Error(w, "no such list: /changes", http.StatusNotFound)
		return
	}
	query := r.URL.Query()
	from, _ := strconv.Atoi(query.Get("offset"))
	since := query.Get("since")
	page, size, n := []change{}, 0, 0
	tag := fmt.Sprintf(`"%d"`, len(s.changes))
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	for _, c := range s.changes {
		if c.At < since {
			continue
		}
		if n++; n <= from {
			continue
		}
		if size += int(c.V); len(page) == changesPage || len(page) > 0 && size > changesBytes {
			query.Set("offset", strconv.Itoa(n-1))
			w.Header().Set("Link", fmt.Sprintf(`</changes?%s>; rel="next"; title="more, of them"`, query.Encode()))
			break
		}
		page = append(page, c)
	}
	w.Header().Set("ETag", tag)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"items": page})
}

func (s *changeSystem) start(t *testing.T) {
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

func (s *changeSystem) stop() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	_ = server.Close()
}

// changeAt is the time of change i: three have the same.
func changeAt(i int) time.Time { return time.Date(2026, 1, 1, 0, 0, i/3, 0, time.UTC) }

func (s *changeSystem) put(c ...change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, c...)
}

func newHTTPPoll(t *testing.T) *PullHarness {
	t.Helper()
	ca := mustCA(t)
	pair, err := ca.Pair(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := &changeSystem{
		address: "127.0.0.1:0", password: "first-password", changes: []change{},
		config: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	position := filepath.Join(t.TempDir(), "position")
	var hidden []change
	return &PullHarness{
		System: "httpPoll",
		Options: fakes.JSON(t, map[string]any{
			"url": "https://" + s.address + "/changes?order=asc", "interval": "100ms",
			"items": map[string]any{"list": "data.items", "id": "data.id", "cursor": map[string]any{"item": "data.at", "parameter": "since"}},
		}),
		Config:           contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, Certificate: true, CAFrom: "secret court-ca key ca.crt"}},
		Secrets:          merged(clientCertificate(t, ca), map[string]string{"username": "bus", "password": "first-password", "ca.crt": ca.PEM}),
		WrongCertificate: clientCertificate(t, mustCA(t)),
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Position:         position,
		Endpoint:         "https://" + s.address + "/changes",
		Object:           "/changes",
		Put: func(_ *testing.T, from, to, size int) {
			for i := from; i < to; i++ {
				s.put(change{i, changeAt(i).Format(time.RFC3339), filler(size)})
			}
		},
		Left:    func(t *testing.T) int { t.Helper(); return s.left(t, position) },
		Window:  256,
		Ordered: true,
		Stop:    func(*testing.T) { s.stop() },
		Start:   s.start,
		Remove: func(*testing.T) {
			s.mu.Lock()
			defer s.mu.Unlock()
			hidden, s.changes = s.changes, nil
		},
		Restore: func(*testing.T) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changes = hidden
		},
		Rotate: func(*testing.T) map[string]string {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.password = "second-password"
			return map[string]string{"password": "second-password"}
		},
		Mapped: func(_ *testing.T, i int) func(t *testing.T, m *sdk.Message) {
			at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
			s.put(change{i, at.Format(time.RFC3339), 1})
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				id := strconv.Itoa(i)
				got := []string{m.Subject, m.PartitionKey, m.ContentType, m.Endpoint, m.ID, m.Time.Format(time.RFC3339)}
				if diff := cmp.Diff([]string{id, id, "application/json", "/changes", id + "/2026-02-03T04:05:06Z", "2026-02-03T04:05:06Z"}, got); diff != "" || len(m.Headers) > 0 {
					t.Errorf("headers %v; subject, key, content type, endpoint, id, time (-want +got):\n%s", m.Headers, diff)
				}
			}
		},
	}
}

// left counts the changes after the position.
func (s *changeSystem) left(t *testing.T, position string) int {
	t.Helper()
	raw, err := fakes.ReadPosition(position)
	if err != nil {
		t.Fatal(err)
	}
	var at struct {
		Cursor string
		Edge   []string
	}
	if raw != nil {
		if err := json.Unmarshal(raw, &at); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := -len(at.Edge)
	for _, c := range s.changes {
		if c.At >= at.Cursor {
			n++
		}
	}
	return n
}

func TestHTTPPoll(t *testing.T) { PullSources(t, newHTTPPoll) }
