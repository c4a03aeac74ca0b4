// Package postgrestest runs a real PostgreSQL server for tests: Debian's, in a temporary directory, on a loopback port, with TLS by
// a CA of its own. It can be stopped and started again, as an outage is. It installs nothing.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/metip/metip/connectors/conformance/certs"
)

// Superuser of the server, and its password.
const (
	Superuser = "postgres"
	Password  = "correct horse battery"
)

const startTimeout = 60 * time.Second

// Server is a running PostgreSQL server.
type Server struct {
	// Host and Port it listens on.
	Host string
	Port int
	// CA of its certificate.
	CA *certs.Authority

	dir     string
	bin     string
	command *exec.Cmd
	exited  chan struct{}
	output  *bytes.Buffer
}

// Start a server on loopback.
func Start() (*Server, error) { return StartOn("127.0.0.1") }

// StartOn starts a server on another address of this machine, where all who reach it may log in.
func StartOn(host string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{Host: host, bin: bin}
	if s.dir, err = os.MkdirTemp("", "metip-postgres-"); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
	}
	if err := s.Resume(); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	return s, nil
}

// binaries of the newest PostgreSQL that is installed.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New("PostgreSQL is not installed: run `make test`, which installs it, or `apt-get install postgresql`")
}

func (s *Server) prepare() error {
	listener, err := net.Listen("tcp", net.JoinHostPort(s.Host, "0"))
	if err != nil {
		return err
	}
	s.Port = listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return err
	}
	if s.CA, err = certs.New("test database CA"); err != nil {
		return err
	}
	cert, key, err := s.CA.Issue(time.Now().Add(12*time.Hour), "localhost", s.Host)
	if err != nil {
		return err
	}
	files := map[string]string{"server.crt": cert, "server.key": key, "password": Password}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	if err := s.handOver(); err != nil {
		return err
	}
	initdb := s.run("initdb", "--pgdata", filepath.Join(s.dir, "data"), "--username", Superuser, "--pwfile", filepath.Join(s.dir, "password"),
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	return s.allow()
}

// allow those whom the server can be reached by; initdb allows loopback.
func (s *Server) allow() error {
	hba, err := os.OpenFile(filepath.Join(s.dir, "data", "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = hba.WriteString("host all all 0.0.0.0/0 scram-sha-256\n")
	return errors.Join(err, hba.Close())
}

// handOver the directory to the user that the server runs as: it refuses to run as root.
func (s *Server) handOver() error {
	uid, gid, err := account()
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	return filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
}

func account() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid(), nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, fmt.Errorf("root cannot run PostgreSQL, and: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

func (s *Server) run(name string, arguments ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(s.bin, name), arguments...)
	command.Dir = s.dir
	command.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	// The server goes with the test, however that ends.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if uid, gid, err := account(); err == nil && os.Geteuid() == 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return command
}

// Resume a server that is stopped, on the same port with the same data.
func (s *Server) Resume() error {
	s.output = &bytes.Buffer{}
	s.command = s.run("postgres", "-D", filepath.Join(s.dir, "data"),
		"-c", "listen_addresses="+s.Host, "-c", "port="+strconv.Itoa(s.Port), "-c", "unix_socket_directories="+s.dir,
		"-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(s.dir, "server.crt"), "-c", "ssl_key_file="+filepath.Join(s.dir, "server.key"),
		"-c", "fsync=off", "-c", "wal_level=logical", "-c", "max_replication_slots=40", "-c", "max_wal_senders=40", "-c", "log_statement=none", "-c", "max_connections=60")
	s.command.Stdout, s.command.Stderr = s.output, s.output
	if err := s.command.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	command := s.command
	go func() {
		_ = command.Wait() // how it ends is what tests ask for
		close(exited)
	}()
	deadline := time.Now().Add(startTimeout)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := s.ping(ctx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("PostgreSQL ended: %s", s.output.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Kill()
			return fmt.Errorf("PostgreSQL did not answer within %s: %w", startTimeout, err)
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL of a database for the superuser, not encrypted.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", Superuser, "correct%20horse%20battery", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), database)
}

// Halt ends the server in order, cutting off its clients.
func (s *Server) Halt() { s.end(syscall.SIGINT) }

// Kill ends the server as a crash does.
func (s *Server) Kill() { s.end(syscall.SIGQUIT) }

func (s *Server) end(signal syscall.Signal) {
	_ = s.command.Process.Signal(signal)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		_ = s.command.Process.Kill()
		<-s.exited
	}
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

// Exec runs statements as the superuser.
func (s *Server) Exec(t testing.TB, database, sql string) {
	t.Helper()
	conn := s.connect(t, database)
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Query gives the rows of a query as the superuser, each value as text.
func (s *Server) Query(t testing.TB, database, sql string) [][]string {
	t.Helper()
	conn := s.connect(t, database)
	defer func() { _ = conn.Close(context.Background()) }()
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var rows [][]string
	for _, result := range results {
		for _, row := range result.Rows {
			values := make([]string, len(row))
			for i, v := range row {
				if v == nil {
					values[i] = "NULL"
				} else {
					values[i] = string(v)
				}
			}
			rows = append(rows, values)
		}
	}
	return rows
}

func (s *Server) connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
