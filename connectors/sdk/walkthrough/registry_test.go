package walkthrough

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// record is made when it is asked for: a registry's disk is no memory.
type record struct {
	id   string
	body func() string
}

// server is a registry: a port, and what it has. It outlives its listener, as a registry on a disk does.
type server struct {
	mu       sync.Mutex
	address  string
	listener net.Listener
	conns    map[net.Conn]bool
	password string
	// waiting are records to be taken, in their order; given are those that a connection has and has not acknowledged.
	waiting []record
	given   map[string]record
	refused []record
	// stored are the beginnings of records that were put, in the order of their arrival.
	stored []string
	known  map[string]bool
	more   chan struct{}
	// frozen answers nothing until it is closed; nil answers.
	frozen chan struct{}
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{address: "127.0.0.1:0", password: "first-password", given: map[string]record{}, known: map[string]bool{}, more: make(chan struct{})}
	s.start(t)
	t.Cleanup(s.stop)
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener, s.address, s.conns = listener, listener.Addr().String(), map[net.Conn]bool{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
			go s.serve(conn)
		}
	}()
}

// stop as a crash does.
func (s *server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.listener.Close()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *server) serve(conn net.Conn) {
	var taken string
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
		if record, ok := s.given[taken]; ok { // it is given to another
			delete(s.given, taken)
			s.waiting = slices.Insert(s.waiting, 0, record)
			s.wake()
		}
	}()
	lines := bufio.NewReader(conn)
	for known := false; ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		s.mu.Lock()
		frozen := s.frozen
		s.mu.Unlock()
		if frozen != nil {
			<-frozen
		}
		var answer string
		switch {
		case verb == "HELLO":
			s.mu.Lock()
			known = rest == "bus "+s.password
			s.mu.Unlock()
			answer = "NO wrong password"
			if known {
				answer = "OK"
			}
		case !known:
			return
		case verb == "PING":
			answer = "OK"
		case verb == "TAKE":
			answer = s.take()
			taken, _, _ = strings.Cut(answer, " ")
		case verb == "DONE" || verb == "REFUSE":
			s.mu.Lock()
			if verb == "REFUSE" {
				s.refused = append(s.refused, s.given[rest])
			}
			delete(s.given, rest)
			s.mu.Unlock()
			answer = "OK"
		case verb == "PUT":
			answer = s.put(rest)
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

func (s *server) take() string {
	for deadline := time.After(2 * time.Second); ; {
		s.mu.Lock()
		if len(s.waiting) > 0 {
			record := s.waiting[0]
			s.waiting = s.waiting[1:]
			s.given[record.id] = record
			s.mu.Unlock()
			return record.id + " " + record.body()
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			return "NONE"
		}
	}
}

func (s *server) put(record string) string {
	id, body, _ := strings.Cut(record, " ")
	if strings.Contains(body, `"poison":true`) {
		return "BAD it is poison"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known[id] {
		s.known[strings.Clone(id)] = true
		body, _, _ = strings.Cut(body, `,"padding"`) // a whole one would be taken for memory of the sink
		s.stored = append(s.stored, strings.Clone(body))
	}
	return "OK"
}

// wake who waits for records. The caller holds the lock.
func (s *server) wake() {
	close(s.more)
	s.more = make(chan struct{})
}
