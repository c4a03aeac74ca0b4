package chaos

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// link is the network between one pod and one server. It can be cut, and packets can be dropped, in one direction or both: as with TCP, what was
// dropped arrives once they are no longer.
type link struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	state linkState
	// changed is closed when the state changes.
	changed chan struct{}
	conns   map[*splice]struct{}
}

type linkState struct {
	// cut: connections break, and none is made.
	cut bool
	// dropUp and dropDown are the packets to the server, and those from it.
	dropUp, dropDown bool
}

// splice is one connection. Of a half-open one the server's end has gone, and the pod's knows nothing: what it sends vanishes.
type splice struct {
	pod, server net.Conn
	half        atomic.Bool
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{listener: l, to: to, changed: make(chan struct{}), conns: map[*splice]struct{}{}}
	go k.serve()
	t.Cleanup(func() {
		_ = l.Close()
		k.set(linkState{cut: true})
	})
	return k
}

func (k *link) address() string { return k.listener.Addr().String() }

func (k *link) set(s linkState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	close(k.changed)
	k.changed = make(chan struct{})
	if s.cut {
		for c := range k.conns {
			reset(c.pod)
			reset(c.server)
		}
	}
}

// halfOpen breaks the servers' ends of all connections, and the pod does not hear of it.
func (k *link) halfOpen() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		c.half.Store(true)
		reset(c.server)
	}
}

// reset a connection, rather than close it in order.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (k *link) serve() {
	for {
		pod, err := k.listener.Accept()
		if err != nil {
			return
		}
		go k.splice(pod)
	}
}

func (k *link) splice(pod net.Conn) {
	if !k.passes(func(s linkState) bool { return !s.dropUp && !s.dropDown }) {
		reset(pod)
		return
	}
	server, err := net.DialTimeout("tcp", k.to, 2*time.Second)
	if err != nil {
		reset(pod)
		return
	}
	c := &splice{pod: pod, server: server}
	k.mu.Lock()
	k.conns[c] = struct{}{}
	k.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { k.copy(c, server, pod, func(s linkState) bool { return !s.dropUp }) })
	k.copy(c, pod, server, func(s linkState) bool { return !s.dropDown })
	reset(server)
	both.Wait()
	reset(pod)
	k.mu.Lock()
	delete(k.conns, c)
	k.mu.Unlock()
}

// copy one direction until either end breaks.
func (k *link) copy(c *splice, to, from net.Conn, open func(linkState) bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !k.passes(open) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil && !c.half.Load() {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passes waits while packets are dropped. It is false when the link is cut.
func (k *link) passes(open func(linkState) bool) bool {
	for {
		k.mu.Lock()
		state, changed := k.state, k.changed
		k.mu.Unlock()
		switch {
		case state.cut:
			return false
		case open(state):
			return true
		}
		<-changed
	}
}
