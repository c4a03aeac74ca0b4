package cluster

import (
	"context"
	"errors"
	"sync"
	"time"
)

// holdPause is how long a failed connection is not tried again: of many that ask for it at once, one tries.
const holdPause = 250 * time.Millisecond

// Link is a connection whose protocol is open.
type Link interface {
	comparable
	// Alive says nil while the connection is open, and else why it is not.
	Alive() error
	// End the connection in order, with what was sent before.
	End()
	// Made is what the connection was made with.
	Made() Proof
}

// Holder keeps one connection for many, and makes another when it is lost or the Secrets have changed.
type Holder[L Link] struct {
	dialer *Dialer
	dial   func(context.Context) (L, error)
	turn   chan struct{} // one dials

	mu      sync.Mutex
	link    L // the zero value: none
	users   map[L]int
	version uint64
	failed  time.Time
	failure error
	closed  bool
}

// NewHolder of connections that dial makes.
func NewHolder[L Link](d *Dialer, dial func(context.Context) (L, error)) *Holder[L] {
	return &Holder[L]{dialer: d, dial: dial, turn: make(chan struct{}, 1), users: map[L]int{}}
}

// Get the connection; Release it after use.
func (h *Holder[L]) Get(ctx context.Context) (L, error) {
	var none L
	if l, err := h.current(); l != none || err != nil {
		return l, err
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	if l, err := h.current(); l != none || err != nil {
		return l, err
	}
	version := h.dialer.Runtime.Secrets.Version()
	l, err := h.dial(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version = version
	if err != nil {
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		h.failed, h.failure = time.Now(), err
		return none, err
	}
	if h.closed {
		go l.End()
		return none, h.dialer.explain(h.dialer.Servers[0].Endpoint, errors.New("the connection is closed"))
	}
	if former := h.link; former != none && h.users[former] == 0 {
		go former.End()
	}
	h.link, h.failure = l, nil
	h.users[l]++
	return l, nil
}

// current is the connection if it is to be used, or why there is none just now; neither means that one is to be made.
func (h *Holder[L]) current() (L, error) {
	version := h.dialer.Runtime.Secrets.Version()
	h.mu.Lock()
	defer h.mu.Unlock()
	var none L
	if h.failure != nil && h.version == version && time.Since(h.failed) < holdPause {
		return none, h.failure
	}
	if h.link == none || h.link.Alive() != nil || h.version != version && h.dialer.Outdated(h.link.Made()) {
		return none, nil
	}
	h.users[h.link]++
	return h.link, nil
}

// Release the connection: one that was replaced ends when nobody uses it.
func (h *Holder[L]) Release(l L) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[l]--; h.users[l] > 0 {
		return
	}
	delete(h.users, l)
	if l != h.link && !h.closed {
		go l.End()
	}
}

// Silent is the state of a server that has not answered in time.
func (h *Holder[L]) Silent() error {
	return h.dialer.explain(h.dialer.Servers[0].Endpoint, errors.New("no answer in time"))
}

// Close for good; what is under way breaks off.
func (h *Holder[L]) Close() {
	h.mu.Lock()
	var none L
	l := h.link
	h.link, h.closed = none, true
	h.mu.Unlock()
	if l != none {
		l.End()
	}
}
