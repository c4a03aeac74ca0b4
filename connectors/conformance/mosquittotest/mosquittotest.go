// Package mosquittotest runs a real Mosquitto broker for tests: Debian's, on loopback, with TLS by a CA of its own that asks every client of the
// TLS port for a certificate, with passwords and permissions. Sessions and their messages outlive a crash.
package mosquittotest

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/servers"
)

// Administrator of the broker, who may read and write every topic, and the password. Other users have the topics below their name.
const (
	Administrator = "administrator"
	Password      = "correct-horse-battery"
)

const (
	account = servers.Account("mosquitto")
	within  = 60 * time.Second
)

// Server is a running broker.
type Server struct {
	*servers.Process
	// Host and Port of MQTT over TLS; PlainPort is without, and not cut off.
	Host            string
	Port, PlainPort int
	// CA of its certificate, and of those that clients must show.
	CA *certs.Authority

	folder string
	wire   *wire
	mu     sync.Mutex
	users  map[string]string
}

// Start a broker on loopback.
func Start() (*Server, error) { return StartOn("127.0.0.1") }

// StartOn starts a broker on another address of this machine.
func StartOn(host string) (*Server, error) {
	program, err := servers.Find("mosquitto", "/usr/sbin/mosquitto")
	if err != nil {
		return nil, err
	}
	ports, err := servers.Ports(3)
	if err != nil {
		return nil, err
	}
	s := &Server{Host: host, Port: ports[0], PlainPort: ports[1], users: map[string]string{Administrator: entry(Administrator, Password)}}
	if s.CA, err = certs.New("test broker CA"); err != nil {
		return nil, err
	}
	cert, key, err := s.CA.Issue(time.Now().Add(12*time.Hour), "localhost", host)
	if err != nil {
		return nil, err
	}
	s.folder, err = servers.Folder("mosquitto", account, map[string]string{
		"ca.crt": s.CA.PEM, "server.crt": cert, "server.key": key, "passwords": s.users[Administrator], "data/x": "",
		"permissions":    "user " + Administrator + "\ntopic readwrite #\n\npattern readwrite %u/#\n",
		"mosquitto.conf": "",
	})
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(s.folder, name) }
	err = os.WriteFile(file("mosquitto.conf"), fmt.Appendf(nil, `allow_anonymous false
password_file %[1]s
acl_file %[2]s
persistence true
persistence_location %[3]s/
max_queued_messages 0
set_tcp_nodelay true
sys_interval 0
log_dest stderr
log_type error
log_type warning
log_type notice
listener %[4]d %[5]s
listener %[6]d %[5]s
cafile %[7]s
certfile %[8]s
keyfile %[9]s
require_certificate true
`, file("passwords"), file("permissions"), file("data"), s.PlainPort, host, ports[2], file("ca.crt"), file("server.crt"), file("server.key")), 0o600)
	if err == nil {
		s.Process, err = servers.Start(servers.Spec{Name: "Mosquitto", Folder: s.folder, Account: account, Command: []string{program, "-c", file("mosquitto.conf")}, Ready: s.ready})
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.folder))
	}
	s.wire = &wire{from: address(host, s.Port), to: address(host, ports[2])}
	if err := s.wire.join(); err != nil {
		s.Process.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) ready() error {
	c, err := s.connect(Administrator, Password, "ready", false)
	if err != nil {
		return err
	}
	return c.Close()
}

// entry of the file of passwords.
func entry(name, password string) string {
	const rounds = 101
	salt := make([]byte, 12)
	_, _ = rand.Read(salt)
	key, err := pbkdf2.Key(sha512.New, password, salt, rounds, 64)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s:$7$%d$%s$%s\n", name, rounds, base64.StdEncoding.EncodeToString(salt), base64.StdEncoding.EncodeToString(key))
}

// User makes a user, or sets another password, which the broker then asks for.
func (s *Server) User(t testing.TB, name, password string) {
	t.Helper()
	s.mu.Lock()
	s.users[name] = entry(name, password)
	var all strings.Builder
	for _, line := range s.users {
		all.WriteString(line)
	}
	path := filepath.Join(s.folder, "passwords")
	err := os.WriteFile(path, []byte(all.String()), 0o600)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGHUP)
	eventually(t, "the broker knows the password", func() error {
		c, err := s.connect(name, password, "password-of-"+name, false)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// Kill crashes the broker. It acknowledges a message before it writes down what it holds, so that a crash in between is a loss of its own, which is none
// of a test's business: its wire is cut, it is told to write, and only then it is killed. Nobody has heard of what it has not written.
func (s *Server) Kill() {
	s.wire.cut()
	path := filepath.Join(s.folder, "data", "mosquitto.db")
	before, _ := os.Stat(path)
	s.Signal(syscall.SIGUSR1)
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		if now, err := os.Stat(path); err == nil && (before == nil || !os.SameFile(before, now)) {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "Mosquitto does not write down its sessions")
			break
		}
	}
	s.Process.Kill()
}

// Resume a broker that has ended.
func (s *Server) Resume() error {
	if err := s.Process.Resume(); err != nil {
		return err
	}
	return s.wire.join()
}

// Close ends the broker and removes its data.
func (s *Server) Close() {
	s.wire.cut()
	s.Process.Close()
}

// Client issues a certificate for a client.
func (s *Server) Client(t testing.TB) (certPEM, keyPEM string) {
	t.Helper()
	certPEM, keyPEM, err := s.CA.Issue(time.Now().Add(time.Hour), "client")
	if err != nil {
		t.Fatal(err)
	}
	return certPEM, keyPEM
}

func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", within, what, err)
		}
	}
}
