package main

import (
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/test/bench/record"
)

// run is the record of one load: when each message was sent, accepted and delivered. Numbers of different runs differ.
type run struct {
	began time.Time
	base  int
	next  atomic.Int64
	// Nanoseconds since began; 0 means not (yet).
	sent, accepted, delivered []atomic.Int64
	confirmed                 atomic.Int64
	arrived                   atomic.Int64
	repeats                   atomic.Int64
	refused                   atomic.Int64
	lastArrival               atomic.Int64
}

func newRun(base, capacity int) *run {
	return &run{
		began: time.Now(), base: base,
		sent: make([]atomic.Int64, capacity), accepted: make([]atomic.Int64, capacity), delivered: make([]atomic.Int64, capacity),
	}
}

// take the next number; false when there are no more.
func (r *run) take() (index int, ok bool) {
	i := int(r.next.Add(1)) - 1
	return i, i < len(r.sent)
}

func (r *run) arrive(index int) {
	now := int64(time.Since(r.began))
	if !r.delivered[index].CompareAndSwap(0, now) {
		r.repeats.Add(1)
		return
	}
	r.lastArrival.Store(now)
	r.arrived.Add(1)
}

// latencies from sent to the other end, sorted, of the messages that reached it.
func (r *run) latencies(to []atomic.Int64) []time.Duration {
	var all []time.Duration
	for i := range min(int(r.next.Load()), len(r.sent)) {
		sent, end := r.sent[i].Load(), to[i].Load()
		if end > 0 {
			all = append(all, time.Duration(end-sent))
		}
	}
	slices.Sort(all)
	return all
}

// target is the system that messages are delivered to: an HTTP server that notes when each arrives.
type target struct {
	url    string
	server *http.Server
	mu     sync.RWMutex
	run    *run
}

func startTarget() (*target, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &target{url: "http://" + l.Addr().String() + "/"}
	t.server = &http.Server{Handler: http.HandlerFunc(t.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = t.server.Serve(l) }()
	return t, nil
}

// expect the messages of a run.
func (t *target) expect(r *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run = r
}

func (t *target) serve(w http.ResponseWriter, q *http.Request) {
	var head [len(record.Prefix) + record.Digits]byte
	n := -1
	if _, err := io.ReadFull(q.Body, head[:]); err == nil {
		n = record.Number(head[:])
	}
	_, _ = io.Copy(io.Discard, q.Body)
	t.mu.RLock()
	r := t.run
	t.mu.RUnlock()
	if r != nil {
		if i := n - r.base; n >= 0 && i >= 0 && i < len(r.sent) {
			r.arrive(i)
		} else {
			r.repeats.Add(1)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
