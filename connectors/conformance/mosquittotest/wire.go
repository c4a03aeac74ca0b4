package mosquittotest

import (
	"io"
	"net"
	"strconv"
	"sync"
)

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// wire carries connections to the broker until it is cut.
type wire struct {
	from, to string

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
}

// join the wire, unless it is whole.
func (w *wire) join() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", w.from)
	if err != nil {
		return err
	}
	w.listener, w.open = listener, map[net.Conn]bool{}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go w.carry(listener, in)
		}
	}()
	return nil
}

func (w *wire) carry(listener net.Listener, in net.Conn) {
	out, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = in.Close()
		return
	}
	w.mu.Lock()
	if w.listener != listener { // it was cut meanwhile
		w.mu.Unlock()
		_, _ = in.Close(), out.Close()
		return
	}
	w.open[in], w.open[out] = true, true
	w.mu.Unlock()
	copied := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
		copied <- struct{}{}
	}
	go pass(out, in)
	go pass(in, out)
	<-copied
	<-copied
	_, _ = in.Close(), out.Close()
	w.mu.Lock()
	delete(w.open, in)
	delete(w.open, out)
	w.mu.Unlock()
}

// cut the wire: nothing passes any more, and nobody answers.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil {
		return
	}
	_ = w.listener.Close()
	for conn := range w.open {
		_ = conn.Close()
	}
	w.listener = nil
}
