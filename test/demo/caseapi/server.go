package caseapi

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const maxBody = 1 << 20

// Mode is how the server behaves towards those who bring cases.
type Mode string

// The modes.
const (
	// ModeOK accepts what is valid.
	ModeOK Mode = "ok"
	// ModeFail answers 500.
	ModeFail Mode = "fail500"
	// ModeBusy answers 429 with Retry-After: 1.
	ModeBusy Mode = "busy429"
	// ModeHang answers nothing until the caller gives up.
	ModeHang Mode = "hang"
	// ModeDown closes the connection without an answer.
	ModeDown Mode = "down"
	// ModeStoreThenFail stores the case and answers 500: the caller cannot know.
	ModeStoreThenFail Mode = "store-then-fail500"
)

func (m Mode) valid() bool {
	switch m {
	case ModeOK, ModeFail, ModeBusy, ModeHang, ModeDown, ModeStoreThenFail:
		return true
	}
	return false
}

// Case as the server keeps it.
type Case struct {
	CaseID   string    `json:"caseId"`
	Received time.Time `json:"received"`
	// Keys are the Idempotency-Keys that the case came under, each once, and Requests how often it came.
	Keys     []string        `json:"keys"`
	Requests int             `json:"requests"`
	Body     json.RawMessage `json:"body,omitempty"`
}

// Stats of the server since it began, or since it was reset.
type Stats struct {
	Cases    int `json:"cases"`
	Requests int `json:"requests"`
	// Repeated requests had an Idempotency-Key that was known.
	Repeated int `json:"repeated"`
	// Rejected requests can never be accepted (400, 422).
	Rejected int `json:"rejected"`
	// Failed requests fell to a fault.
	Failed       int `json:"failed"`
	Unauthorized int `json:"unauthorized"`
	// Connections that were opened.
	Connections int  `json:"connections"`
	Mode        Mode `json:"mode"`
}

// Server is the case API. It is safe for concurrent use.
type Server struct {
	tokens func() []string

	mu    sync.Mutex
	mode  Mode
	cases map[string]*Case
	keys  map[string]bool
	stats Stats
}

// NewServer of a case API that lets in whoever shows one of the tokens.
func NewServer(tokens func() []string) *Server {
	s := &Server{tokens: tokens}
	s.reset()
	return s
}

func (s *Server) reset() {
	s.mode, s.cases, s.keys, s.stats = ModeOK, map[string]*Case{}, map[string]bool{}, Stats{}
}

// Handler of the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /cases/{id}", s.authorized(s.put))
	mux.HandleFunc("GET /cases/{id}", s.authorized(s.get))
	mux.HandleFunc("/echo/", s.authorized(s.echo))
	mux.HandleFunc("GET /stats", s.authorized(s.getStats))
	mux.HandleFunc("GET /ids", s.authorized(s.list))
	mux.HandleFunc("POST /faults", s.authorized(s.setMode))
	mux.HandleFunc("POST /reset", s.authorized(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reset()
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	// a look at the root, as somebody does who wants to know whether the API is there
	mux.HandleFunc("/{$}", s.authorized(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	return mux
}

// Serve until the context ends.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.mu.Lock()
				s.stats.Connections++
				s.mu.Unlock()
			}
		},
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(drain)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

func (s *Server) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, token := range s.tokens() {
			if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) == 1 {
				next(w, r)
				return
			}
		}
		s.mu.Lock()
		s.stats.Unauthorized++
		s.mu.Unlock()
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a known bearer token is needed", http.StatusUnauthorized)
	}
}

// incoming is what the API wants to see in a case.
type incoming struct {
	CaseID string `json:"caseId"`
	Court  struct {
		Code string `json:"code"`
	} `json:"court"`
}

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	mode := s.count()
	if fails(w, r, mode) {
		return
	}
	status, problem := s.store(r.PathValue("id"), r.Header.Get("Idempotency-Key"), body)
	if mode == ModeStoreThenFail {
		status, problem = http.StatusInternalServerError, "stored, and then it broke"
	}
	if problem != "" {
		http.Error(w, problem, status)
		return
	}
	w.WriteHeader(status)
}

// count a request, and say how it is to be treated.
func (s *Server) count() Mode {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests++
	if s.mode != ModeOK {
		s.stats.Failed++
	}
	return s.mode
}

// fails the request, if the mode says so.
func fails(w http.ResponseWriter, r *http.Request, mode Mode) bool {
	switch mode {
	case ModeFail:
		http.Error(w, "the case management system is out of order", http.StatusInternalServerError)
		return true
	case ModeBusy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many cases", http.StatusTooManyRequests)
		return true
	case ModeHang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case ModeDown:
		panic(http.ErrAbortHandler)
	}
	return false
}

// Echo is a request as the API saw it.
type Echo struct {
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Query   string      `json:"query"`
	Headers http.Header `json:"headers"`
	Body    []byte      `json:"body"`
	// From is the address of who asked.
	From string `json:"from"`
}

// EchoHeader of an echo repeats the request's header of this name.
const EchoHeader = "X-Echo"

// echo what came, with the status that the query names.
func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if fails(w, r, s.count()) {
		return
	}
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	status := http.StatusOK
	if n, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil && n >= 200 && n <= 599 {
		status = n
	}
	w.Header()[EchoHeader] = r.Header[EchoHeader]
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Echo{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header, body, from})
}

func (s *Server) store(id, key string, body []byte) (status int, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in incoming
	if err := json.Unmarshal(body, &in); err != nil {
		s.stats.Rejected++
		return http.StatusBadRequest, "not a case: " + err.Error()
	}
	switch {
	case in.CaseID != id:
		s.stats.Rejected++
		return http.StatusUnprocessableEntity, fmt.Sprintf("caseId %q is not the path's %q", in.CaseID, id)
	case in.Court.Code == "":
		s.stats.Rejected++
		return http.StatusUnprocessableEntity, "court.code is missing: a case needs a court"
	}
	known, repeated := s.cases[id], key != "" && s.keys[key]
	if repeated {
		s.stats.Repeated++
	}
	if known != nil {
		known.Requests++
		if !repeated {
			known.Body, known.Keys = body, append(known.Keys, key)
		}
		s.keys[key] = true
		return http.StatusOK, ""
	}
	s.cases[id] = &Case{CaseID: id, Received: time.Now().UTC(), Keys: []string{key}, Requests: 1, Body: body}
	s.keys[key] = true
	return http.StatusCreated, ""
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.cases[r.PathValue("id")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	answer(w, c)
}

func (s *Server) getStats(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Cases, stats.Mode = len(s.cases), s.mode
	answer(w, stats)
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cases := make([]Case, 0, len(s.cases))
	for _, c := range s.cases {
		without := *c
		without.Body = nil
		cases = append(cases, without)
	}
	answer(w, cases)
}

func (s *Server) setMode(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Mode Mode `json:"mode"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in)
	if err != nil || !in.Mode.valid() {
		http.Error(w, "mode "+strconv.Quote(string(in.Mode))+" is unknown", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = in.Mode
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
