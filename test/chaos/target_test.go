package chaos

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// mode is how the target behaves.
type mode int

const (
	fine mode = iota
	slow
	failing     // 500 before anything is done
	unavailable // 503
	busy        // 429 with Retry-After
	resetting   // the connection breaks before anything is done
	lying       // the work is done, and the answer is 500
	breaking    // the work is done, and the connection breaks in the middle of the answer
)

// effect is one piece of work that the target did.
type effect struct {
	// came is when the request did, at when the work was done.
	came, at time.Time
	// confirmed: the answer said so, and was handed to the network.
	confirmed bool
	key       string
}

// target is the HTTP system of the flow. It counts what it does by id, and remembers no keys.
type target struct {
	server *http.Server
	url    string
	dice   *dice

	mu      sync.Mutex
	mode    mode
	effects map[string][]effect
	// wrong are messages that should never have come.
	wrong []string
	last  time.Time
	// gap is the longest time between two pieces of work, and gapAt its end.
	gap   time.Duration
	gapAt time.Time
}

func newTarget(t testing.TB, d *dice) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &target{url: "http://" + l.Addr().String(), dice: d, effects: map[string][]effect{}}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: time.Minute}
	go func() { _ = g.server.Serve(l) }()
	t.Cleanup(func() { _ = g.server.Close() })
	return g
}

func (g *target) set(m mode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = m
}

// record is the body of a message.
type record struct {
	ID     string `json:"id"`
	Keep   bool   `json:"keep"`
	Reject bool   `json:"reject,omitempty"`
	Pad    string `json:"pad"`
}

func (g *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	came := time.Now()
	g.mu.Lock()
	m := g.mode
	g.mu.Unlock()
	switch m {
	case slow:
		time.Sleep(g.dice.between(50*time.Millisecond, 1500*time.Millisecond))
	case failing:
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case unavailable:
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case busy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "busy", http.StatusTooManyRequests)
		return
	case resetting:
		hangUp(w, "")
		return
	}
	if r.URL.Path == "/blobs" {
		if id, ok := g.takeClaim(w, r); ok {
			g.finish(w, r, m, id, came)
		}
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it has not arrived: nothing was done
	}
	var in record
	if err := json.Unmarshal(body, &in); err != nil || r.URL.Path != "/cases/"+in.ID || r.Header.Get("Ce-Id") != in.ID {
		g.refuse("garbled: "+r.URL.Path, w, http.StatusBadRequest)
		return
	}
	if !in.Keep {
		g.refuse("filtered: "+in.ID, w, http.StatusBadRequest)
		return
	}
	if in.Reject {
		http.Error(w, "no such court", http.StatusUnprocessableEntity)
		return
	}
	g.finish(w, r, m, in.ID, came)
}

// finish a message: the work, and the answer.
func (g *target) finish(w http.ResponseWriter, r *http.Request, m mode, id string, came time.Time) {
	n := g.work(id, r.Header.Get("Idempotency-Key"), came)
	// A target takes its time: a pod that dies always dies with some messages in its hands.
	time.Sleep(g.dice.between(20*time.Millisecond, 100*time.Millisecond))
	switch m {
	case lying:
		http.Error(w, "done, and then it broke", http.StatusInternalServerError)
	case breaking:
		hangUp(w, "HTTP/1.1 2")
	default:
		w.WriteHeader(http.StatusCreated)
		g.confirm(id, n)
	}
}

func (g *target) refuse(what string, w http.ResponseWriter, status int) {
	g.mu.Lock()
	g.wrong = append(g.wrong, what)
	g.mu.Unlock()
	http.Error(w, what, status)
}

// work is what the target does with a message.
func (g *target) work(id, key string, came time.Time) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if gap := now.Sub(g.last); !g.last.IsZero() && gap > g.gap {
		g.gap, g.gapAt = gap, now
	}
	g.last = now
	g.effects[id] = append(g.effects[id], effect{came: came, at: now, key: key})
	return len(g.effects[id]) - 1
}

func (g *target) confirm(id string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.effects[id][n].confirmed = true
}

// busyWithin says whether anything was done within the last d.
func (g *target) busyWithin(d time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.last) < d
}

// has says whether the message's work was done.
func (g *target) has(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.effects[id]) > 0
}

// hangUp breaks the connection, after some bytes.
func hangUp(w http.ResponseWriter, text string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(conn, text)
	reset(conn)
}
