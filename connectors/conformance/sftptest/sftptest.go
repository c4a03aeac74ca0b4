// Package sftptest runs a real SFTP server for tests: Debian's OpenSSH, with a host key of its own, for one user who logs in by a key
// and whose files are in a folder of the test's.
package sftptest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/metip/metip/connectors/conformance/servers"
)

// Server is a running server.
type Server struct {
	*servers.Process
	Host string
	Port int
	// User who may log in, and HostKey, the fingerprint of the server's.
	User, HostKey string
	// Files is the folder for the user's files.
	Files string

	authorized string
}

// Key pair: the private one as OpenSSH writes it, and the line that lets it in.
type Key struct{ Private, Public, Fingerprint string }

// NewKey makes a key pair.
func NewKey() (Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return Key{}, err
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return Key{}, err
	}
	return Key{string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(p)), ssh.FingerprintSHA256(p)}, nil
}

// Start a server on loopback that lets in who has one of the keys.
func Start(keys ...Key) (*Server, error) { return StartOn("127.0.0.1", keys...) }

// StartOn starts a server on another address of this machine.
func StartOn(host string, keys ...Key) (*Server, error) {
	program, err := servers.Find("openssh-server", "/usr/sbin/sshd")
	if err != nil {
		return nil, err
	}
	ports, err := servers.Ports(1)
	if err != nil {
		return nil, err
	}
	own, err := user.Current()
	if err != nil {
		return nil, err
	}
	hostKey, err := NewKey()
	if err != nil {
		return nil, err
	}
	folder, err := servers.Folder("sftp", "", map[string]string{"host-key": hostKey.Private, "files/x": ""})
	if err != nil {
		return nil, err
	}
	s := &Server{
		Host: host, Port: ports[0], User: own.Username, HostKey: hostKey.Fingerprint, Files: filepath.Join(folder, "files"), authorized: filepath.Join(folder, "authorized"),
	}
	if err := errors.Join(os.Remove(filepath.Join(s.Files, "x")), s.Authorize(keys...), s.configure(folder)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	if os.Geteuid() == 0 { // where it asks for one, the machine's own service makes it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, errors.Join(err, os.RemoveAll(folder))
		}
	}
	s.Process, err = servers.Start(servers.Spec{
		Name: "sshd", Folder: folder, Command: []string{program, "-D", "-e", "-f", filepath.Join(folder, "sshd_config")}, Ready: s.ready,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return s, nil
}

func (s *Server) configure(folder string) error {
	return os.WriteFile(filepath.Join(folder, "sshd_config"), fmt.Appendf(nil, `ListenAddress %s
Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding no
MaxStartups 100
MaxSessions 50
Subsystem sftp internal-sftp
ForceCommand internal-sftp
`, s.Host, s.Port, filepath.Join(folder, "host-key"), s.authorized), 0o600)
}

// Authorize who has one of the keys, and nobody else.
func (s *Server) Authorize(keys ...Key) error {
	var lines []byte
	for _, k := range keys {
		lines = append(lines, k.Public...)
	}
	return os.WriteFile(s.authorized, lines, 0o600)
}

// ready when it greets.
func (s *Server) ready() error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = conn.Read(make([]byte, 4))
	return err
}
