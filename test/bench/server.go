package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/controllers/loopback"
)

// binaries that are measured.
type binaries struct{ natsServer, ref, connector, bulk, manager string }

// build the packages into dir. The broker is the NATS server's own command, at the version of go.mod.
func build(ctx context.Context, dir string, packages map[*string]string) error {
	for path, pkg := range packages {
		*path = filepath.Join(dir, filepath.Base(filepath.Dir(pkg))+"-"+filepath.Base(pkg))
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", *path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// The packages of the binaries.
const (
	packageNATSServer = "github.com/nats-io/nats-server/v2"
	packageRef        = "github.com/metip/metip/test/bench/ref"
	packageConnector  = "github.com/metip/metip/cmd/connector"
	packageProfiled   = "github.com/metip/metip/test/bench/profiled"
	packageBulk       = "github.com/metip/metip/test/bench/bulk"
	packageManager    = "github.com/metip/metip/cmd/manager"
)

// server is a broker process with the operator's view of it.
type server struct {
	process *process
	// others of a cluster.
	others []*process
	broker *loopback.Broker
	url    string
	dir    string
	// bare is the stream's owner on a server without accounts.
	bare jetstream.JetStream
	conn *nats.Conn
}

// startServer runs the NATS server as the operator configures it.
func startServer(ctx context.Context, dir, name, binary string, fsync bool) (s *server, err error) {
	s = &server{dir: filepath.Join(dir, name)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if s.broker, err = loopback.New(s.dir, loopback.Options{Fsync: fsync}); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	args := s.broker.Arguments(0, name, port)
	if s.process, err = start(ctx, s.dir, "nats-server", "tcp://"+address, binary, args...); err != nil {
		return nil, err
	}
	s.url = "tls://" + address
	if err := s.broker.Open(ctx, s.url); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, s.process.tail())
	}
	return s, nil
}

// startBare runs the NATS server without accounts and without TLS: what the account border costs shows against it.
func startBare(ctx context.Context, dir, name, binary string, fsync bool) (s *server, err error) {
	s = &server{dir: filepath.Join(dir, name)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	sync := `"2m"`
	if fsync {
		sync = "always"
	}
	conf := filepath.Join(s.dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\njetstream { store_dir: %q, sync_interval: %s }\n", address, filepath.Join(s.dir, "js"), sync)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if s.process, err = start(ctx, s.dir, "nats-server", "tcp://"+address, binary, "-c", conf); err != nil {
		return nil, err
	}
	s.url = "nats://" + address
	if s.conn, err = nats.Connect(s.url); err != nil {
		s.stop()
		return nil, err
	}
	s.bare, err = jetstream.New(s.conn)
	return s, err
}

// prepareBare makes the stream and the durable consumer of a flow on a server without accounts.
func (s *server) prepareBare(ctx context.Context, f loopback.Flow) error {
	stream, err := s.bare.CreateStream(ctx, jetstream.StreamConfig{Name: f.Stream(), Subjects: []string{"evt.>"}})
	if err != nil {
		return err
	}
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: f.Durable(), AckPolicy: jetstream.AckExplicitPolicy})
	return err
}

// purge removes what a flow has stored, so that every round meets the same broker.
func (s *server) purge(ctx context.Context, f loopback.Flow) error {
	if s.bare == nil {
		return s.broker.Purge(ctx, f)
	}
	stream, err := s.bare.Stream(ctx, f.Stream())
	if err != nil {
		return err
	}
	return stream.Purge(ctx)
}

func (s *server) stop() {
	if s.broker != nil {
		s.broker.Close()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	for _, p := range append([]*process{s.process}, s.others...) {
		p.stop()
	}
}
