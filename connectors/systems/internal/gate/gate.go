// Package gate bounds what a client of a message broker takes in.
package gate

import (
	"net"
	"sync"
	"time"
)

// Gate bounds what a connection takes in: the client library would keep in memory whatever the server sends ahead, and prefetch counts
// messages, not bytes. While more than limit bytes wait to be settled, the gate does not read on.
//
// It counts all that is read, and takes off what of it were bodies; the small rest adds up until the reader of the deliveries finds, with the gate
// shut, that nothing waits, and says so by Clear.
type Gate struct {
	net.Conn
	limit int64
	// Shut gets a value when the gate stops reading.
	Shut chan struct{}

	mu       sync.Mutex
	open     sync.Cond
	waiting  int64
	off      bool
	patience time.Duration
}

// New gate around a connection.
func New(conn net.Conn, limit int64) *Gate {
	g := &Gate{Conn: conn, limit: limit, Shut: make(chan struct{}, 1)}
	g.open.L = &g.mu
	return g
}

// Read implements net.Conn.
func (g *Gate) Read(b []byte) (int, error) {
	g.mu.Lock()
	if g.waiting > g.limit && !g.off {
		select {
		case g.Shut <- struct{}{}:
		default:
		}
		for g.waiting > g.limit && !g.off {
			g.open.Wait()
		}
		if g.patience > 0 { // the deadline has passed while nobody read
			_ = g.Conn.SetReadDeadline(time.Now().Add(g.patience))
		}
	}
	g.mu.Unlock()
	n, err := g.Conn.Read(b)
	g.mu.Lock()
	g.waiting += int64(n)
	g.mu.Unlock()
	return n, err
}

// SetReadDeadline implements net.Conn. What is waited for is that the server is silent, which it is not while the gate is shut.
func (g *Gate) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.patience = 0; !t.IsZero() {
		g.patience = time.Until(t)
	}
	return g.Conn.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (g *Gate) SetDeadline(t time.Time) error {
	g.mu.Lock()
	g.patience = 0
	g.mu.Unlock()
	return g.Conn.SetDeadline(t)
}

// Close implements net.Conn.
func (g *Gate) Close() error {
	g.TurnOff()
	return g.Conn.Close()
}

// Settled says that so many bytes of bodies are no longer held.
func (g *Gate) Settled(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = max(0, g.waiting-int64(n))
	g.open.Broadcast()
}

// Clear says that nothing is held.
func (g *Gate) Clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = 0
	g.open.Broadcast()
}

// TurnOff lets everything pass: answers of the server are waited for.
func (g *Gate) TurnOff() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.off = true
	g.open.Broadcast()
}

// TurnOn bounds again.
func (g *Gate) TurnOn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.off = false
}
