package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metip/metip/controllers/loopback"
)

// startCluster runs three NATS servers as the operator configures them, as one broker.
func startCluster(ctx context.Context, dir, name, binary string, fsync bool) (s *server, err error) {
	const servers = 3
	s = &server{dir: filepath.Join(dir, name)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if s.broker, err = loopback.New(s.dir, loopback.Options{Servers: servers, Fsync: fsync}); err != nil {
		return nil, err
	}
	var ports, routes, urls []string
	for i := range 2 * servers {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if i < servers {
			ports, urls = append(ports, port), append(urls, "tls://"+address)
		} else {
			routes = append(routes, port)
		}
	}
	for i := range servers {
		member := fmt.Sprintf("%s-%d", name, i)
		p, err := start(ctx, s.dir, member, "tcp://"+net.JoinHostPort("127.0.0.1", ports[i]), binary, s.broker.Arguments(i, member, ports[i], routes...)...)
		if err != nil {
			s.stop()
			return nil, err
		}
		if i == 0 {
			s.process = p
		} else {
			s.others = append(s.others, p)
		}
	}
	s.url = strings.Join(urls, ",")
	if err := s.formed(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, s.process.tail())
	}
	return s, nil
}

// formed waits until streams on all servers can be made.
func (s *server) formed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.broker.Open(ctx, s.url); err != nil {
		return err
	}
	for {
		_, err := s.broker.JetStream().AccountInfo(ctx)
		if err == nil {
			return nil
		}
		if failed := wait(ctx, 100*time.Millisecond); failed != nil {
			return fmt.Errorf("%w: %w", failed, err)
		}
	}
}

// cpu time of all servers.
func (s *server) cpu() (all time.Duration, err error) {
	for _, p := range append([]*process{s.process}, s.others...) {
		used, err := p.cpu()
		if err != nil {
			return 0, err
		}
		all += used
	}
	return all, nil
}
