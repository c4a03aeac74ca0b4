package walkthrough

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// patience is how long an answer of the registry is waited for.
	patience = 10 * time.Second
	// maxLine of the registry in bytes: the largest body that the bus takes, and its id.
	maxLine = contract.MaxMessageSize + 1024
)

// options are the JSON of the API's member of the system, as the operator has checked and written it.
type options struct {
	Address string `json:"address"`
}

// registry is where the system is, and how to get there.
type registry struct {
	rt      sdk.Runtime
	address string
}

func newRegistry(rt sdk.Runtime, raw json.RawMessage) (*registry, error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	return &registry{rt, o.Address}, nil
}

// session with the registry, under one version of the Secret.
type session struct {
	conn    net.Conn
	lines   *bufio.Scanner
	version uint64
}

// open a session. Every error says that the system is unavailable, and why.
func (r *registry) open(ctx context.Context) (*session, error) {
	version := r.rt.Secrets.Version()
	user, err := r.rt.Secrets.Get(contract.FileUsername)
	if err != nil {
		return nil, err // it names the Secret and the key
	}
	password, err := r.rt.Secrets.Get(contract.FilePassword)
	if err != nil {
		return nil, err
	}
	conn, err := r.rt.Dial(ctx, "tcp", r.address)
	if err != nil {
		return nil, r.lost(err)
	}
	s := &session{conn: conn, lines: bufio.NewScanner(conn), version: version}
	s.lines.Buffer(nil, maxLine)
	answer, err := s.ask(ctx, fmt.Sprintf("HELLO %s %s", user, password))
	switch {
	case err != nil:
		s.close()
		return nil, r.lost(err)
	case answer != "OK":
		s.close()
		return nil, sdk.Unavailable(contract.ReasonAuthenticationFailed, fmt.Errorf("%s refuses user %s: %.200s", r.address, user, answer))
	}
	return s, nil
}

// lost is the error of a connection that does not work.
func (r *registry) lost(err error) error {
	return sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("registry %s: %w", r.address, err))
}

// ask the registry, and wait for its answer no longer than the context lasts, nor than its patience.
func (s *session) ask(ctx context.Context, parts ...string) (string, error) {
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	// A deadline that has passed wakes who waits. The next question must not meet it.
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = s.conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	if _, err := io.WriteString(s.conn, strings.Join(parts, " ")+"\n"); err != nil {
		return "", err
	}
	return s.line()
}

// line that comes next.
func (s *session) line() (string, error) {
	if s.lines.Scan() {
		return s.lines.Text(), nil
	}
	if err := s.lines.Err(); err != nil {
		return "", err
	}
	return "", errors.New("it has closed the connection")
}

func (s *session) close() { _ = s.conn.Close() }
