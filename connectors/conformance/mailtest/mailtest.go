// Package mailtest runs a mail server for tests: go-smtp in the test's own process, on a loopback port, which keeps what it was given. A real mail system
// would deliver, and bounce, and needs accounts of the machine's; what a connector sees of one is its protocol, which this server speaks with
// STARTTLS, client certificates, every way to authenticate that the connector knows, SIZE and SMTPUTF8.
package mailtest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/metip/metip/connectors/conformance/certs"
)

// User that may submit, and the first password.
const (
	User     = "metip"
	Password = "correct-horse-battery"
)

// Mail that the server has taken.
type Mail struct {
	From string
	To   []string
	// Raw is what came, at most its first 64 KiB, and Header its head.
	Raw    []byte
	Header mail.Header
	// UTF8: SMTPUTF8 was asked for.
	UTF8 bool
}

// Settings of a server.
type Settings struct {
	// Mechanisms of AUTH; empty: PLAIN. None: nobody has to authenticate.
	Mechanisms []string
	None       bool
	// MaxSize of a message; 0: 64 MiB.
	MaxSize int64
	// Plain: there is no TLS. Implicit: it begins with TLS. Otherwise there is STARTTLS. Certificates of clients are asked for where there is TLS.
	Plain, Implicit bool
	// UTF8: SMTPUTF8 is offered.
	UTF8 bool
}

// Server that runs.
type Server struct {
	Host string
	Port int
	CA   *certs.Authority

	settings Settings
	tls      *tls.Config
	// gate is held by who makes the server slow.
	gate sync.RWMutex

	mu       sync.Mutex
	server   *smtp.Server
	password string
	taken    []Mail
	sessions int
	// refuse says what becomes of a recipient (nil: it is taken), and answer of a message that was taken in whole.
	refuse func(to string) error
	answer func(m *Mail) error
}

// Start a server.
func Start(settings Settings) (*Server, error) { return StartOn("127.0.0.1", settings) }

// StartOn an address of this machine.
func StartOn(host string, settings Settings) (*Server, error) {
	s := &Server{Host: host, settings: settings, password: Password}
	if !settings.Plain {
		var err error
		if s.CA, err = certs.New("mail"); err != nil {
			return nil, err
		}
		pair, err := s.CA.Pair(time.Now().Add(time.Hour), host)
		if err != nil {
			return nil, err
		}
		clients := x509.NewCertPool()
		clients.AppendCertsFromPEM([]byte(s.CA.PEM))
		s.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	}
	return s, s.Resume()
}

// Resume a server that was stopped, at its address, with what it has.
func (s *Server) Resume() error {
	listener, err := net.Listen("tcp", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
	if err != nil {
		return err
	}
	s.Port = listener.Addr().(*net.TCPAddr).Port
	server := smtp.NewServer(smtp.BackendFunc(s.session))
	server.Domain, server.TLSConfig, server.EnableSMTPUTF8 = "mail.test", s.tls, s.settings.UTF8
	server.AllowInsecureAuth, server.ErrorLog = s.settings.Plain, log.New(io.Discard, "", 0)
	if server.MaxMessageBytes = s.settings.MaxSize; s.settings.MaxSize == 0 {
		server.MaxMessageBytes = 64 << 20
	}
	if s.settings.Implicit {
		listener = tls.NewListener(listener, s.tls)
	}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go func() { _ = server.Serve(listener) }()
	return nil
}

// Kill the server as a crash does: nobody is told.
func (s *Server) Kill() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	_ = server.Close()
}

// Freeze lets the server answer nothing until the result is called.
func (s *Server) Freeze() (thaw func()) {
	s.gate.Lock()
	return s.gate.Unlock
}

// SetPassword of the user.
func (s *Server) SetPassword(password string) {
	s.mu.Lock()
	s.password = password
	s.mu.Unlock()
}

// Refuse recipients and messages: nil takes them.
func (s *Server) Refuse(recipient func(to string) error, message func(m *Mail) error) {
	s.mu.Lock()
	s.refuse, s.answer = recipient, message
	s.mu.Unlock()
}

// Taken is every mail that was taken, in their order, and how many sessions there were.
func (s *Server) Taken() (mails []Mail, sessions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken), s.sessions
}

func (s *Server) session(*smtp.Conn) (smtp.Session, error) {
	s.wait()
	s.mu.Lock()
	s.sessions++
	s.mu.Unlock()
	return &session{server: s, known: s.settings.None}, nil
}

// wait while the server is frozen.
func (s *Server) wait() {
	s.gate.RLock()
	defer s.gate.RUnlock()
}

func (s *Server) right(user, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if user != User || password != s.password {
		return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "Authentication credentials invalid"}
	}
	return nil
}

type session struct {
	server *Server
	known  bool
	mail   Mail
}

// AuthMechanisms that are offered.
func (s *session) AuthMechanisms() []string {
	switch {
	case s.server.settings.None:
		return nil
	case len(s.server.settings.Mechanisms) == 0:
		return []string{sasl.Plain}
	}
	return s.server.settings.Mechanisms
}

// Auth by one of them.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	if !slices.Contains(s.AuthMechanisms(), mechanism) {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	check := func(user, password string) error {
		s.server.wait()
		err := s.server.right(user, password)
		s.known = err == nil
		return err
	}
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
	case sasl.Login:
		return &login{check: check}, nil
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return &scram{password: s.server.password, known: &s.known}, nil
}

// Mail begins one.
func (s *session) Mail(from string, options *smtp.MailOptions) error {
	s.server.wait()
	if !s.known {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	}
	s.mail = Mail{From: from, UTF8: options != nil && options.UTF8}
	return nil
}

// Rcpt adds a recipient.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.wait()
	s.server.mu.Lock()
	refuse := s.server.refuse
	s.server.mu.Unlock()
	if strings.HasPrefix(to, "nobody") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	}
	if refuse != nil {
		if err := refuse(to); err != nil {
			return err
		}
	}
	s.mail.To = append(s.mail.To, to)
	return nil
}

// Data takes the mail.
func (s *session) Data(r io.Reader) error {
	s.server.wait()
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "It is no mail: " + err.Error()}
	}
	s.mail.Raw, s.mail.Header = bytes.Clone(raw[:min(len(raw), 64<<10)]), parsed.Header
	s.server.mu.Lock()
	answer := s.server.answer
	s.server.mu.Unlock()
	if answer != nil {
		if err := answer(&s.mail); err != nil {
			return err
		}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.taken = append(s.server.taken, s.mail)
	return nil
}

// Reset what was begun.
func (s *session) Reset() { s.mail = Mail{} }

// Logout ends the session.
func (s *session) Logout() error { return nil }
