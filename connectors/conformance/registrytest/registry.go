// Package registrytest is the registry of docs/write-a-connector.md: a server for tests that speaks a protocol of lines, and loses nothing that it has confirmed.
package registrytest

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Record is made when it is asked for: a registry's disk is no memory.
type Record struct {
	ID   string
	Body func() string
}

// Server is a registry: a port, and what it has. It outlives its listener, as a registry on a disk does.
type Server struct {
	mu       sync.Mutex
	address  string
	listener net.Listener
	conns    map[net.Conn]bool
	password string
	// waiting are records to be taken, in their order; given are those that a connection has and has not acknowledged.
	waiting []Record
	given   map[string]Record
	refused []Record
	// stored are the beginnings of records that were put, in the order of their arrival.
	stored []string
	known  map[string]bool
	more   chan struct{}
	// frozen answers nothing until it is closed; nil answers.
	frozen chan struct{}
}

// User of the registry, and its first password.
const (
	User     = "bus"
	Password = "first-password"
)

// Listen at host:port, 0 for one that is free. Stop it in the end.
func Listen(address string) (*Server, error) {
	s := &Server{address: address, password: Password, given: map[string]Record{}, known: map[string]bool{}, more: make(chan struct{})}
	return s, s.Start()
}

// Address is host:port.
func (s *Server) Address() string { return s.address }

// Start again after Stop, at the same address.
func (s *Server) Start() error {
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
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
	return nil
}

// Stop as a crash does.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.listener.Close()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *Server) serve(conn net.Conn) {
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
			known = rest == User+" "+s.password
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

func (s *Server) take() string {
	for deadline := time.After(2 * time.Second); ; {
		s.mu.Lock()
		if len(s.waiting) > 0 {
			record := s.waiting[0]
			s.waiting = s.waiting[1:]
			s.given[record.ID] = record
			s.mu.Unlock()
			return record.ID + " " + record.Body()
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

func (s *Server) put(record string) string {
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
func (s *Server) wake() {
	close(s.more)
	s.more = make(chan struct{})
}

// Offer records to be taken.
func (s *Server) Offer(records ...Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, records...)
	s.wake()
}

// Left is how many records were not taken for good.
func (s *Server) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) + len(s.given)
}

// Refused are the records that were taken and put aside.
func (s *Server) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.refused)
}

// Stored are the beginnings of the records that were put, in the order of their arrival, without what is behind their padding.
func (s *Server) Stored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored)
}

// Rotate the password; connections go on.
func (s *Server) Rotate() (password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = "second-password"
	return s.password
}

// CurrentPassword is the one that new connections need.
func (s *Server) CurrentPassword() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.password
}

// Freeze answers nothing until resume is called.
func (s *Server) Freeze() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frozen := make(chan struct{})
	s.frozen = frozen
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.frozen = nil
		close(frozen)
	}
}
