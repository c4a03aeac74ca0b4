package sftp

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/oneline"
)

const (
	connectTimeout = 10 * time.Second
	// idleTimeout is how long a server may be silent while it is asked for something: then the connection is lost.
	idleTimeout = 30 * time.Second
	// aliveEvery is how often a connection at rest is asked for a sign of life.
	aliveEvery = 15 * time.Second
)

// connectionOptions are the JSON of the API's SFTPConnection.
type connectionOptions struct {
	Host     string   `json:"host"`
	Port     int      `json:"port"`
	HostKeys []string `json:"hostKeys"`
}

// remote is a server, over one connection that is made when it is needed, and anew when it is lost or the Secrets have changed.
type remote struct {
	rt       sdk.Runtime
	address  string
	endpoint string
	hostKeys []string
	// onLost is told of a connection that ends by itself; it may be nil.
	onLost func(error)

	mu      sync.Mutex
	current *session
	version uint64
}

// session is a connection that is open.
type session struct {
	*sftp.Client
	ssh  *ssh.Client
	conn *watched
	stop chan struct{}
	once sync.Once
}

func newRemote(rt sdk.Runtime, o connectionOptions) (*remote, error) {
	if o.Port == 0 {
		o.Port = 22
	}
	if o.Host == "" || o.Port < 1 || o.Port > 65535 {
		return nil, errors.New("connection: host and port say where the server is")
	}
	if len(o.HostKeys) == 0 {
		return nil, errors.New("connection: hostKeys must hold the server's key, as SHA256:...")
	}
	for _, key := range o.HostKeys {
		sum, ok := strings.CutPrefix(key, "SHA256:")
		raw, err := base64.RawStdEncoding.DecodeString(sum)
		if !ok || err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("connection: the host key %q is no fingerprint: write SHA256:... as `ssh-keygen -l` prints it", key)
		}
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthBasic, contract.AuthSSH:
	default:
		return nil, fmt.Errorf("auth %q is neither basic nor ssh", rt.Config.Auth.Kind)
	}
	address := net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	return &remote{rt: rt, address: address, endpoint: "sftp://" + address, hostKeys: o.HostKeys}, nil
}

// watched is a connection whose server may not be silent for long while something is asked of it: each write gives it time.
type watched struct {
	net.Conn
}

func (c *watched) Write(b []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(idleTimeout))
	return c.Conn.Write(b)
}

func (c *watched) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		_ = c.SetDeadline(time.Now().Add(idleTimeout))
	}
	return n, err
}

// session that is open, or a new one.
func (r *remote) session() (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	version := r.rt.Secrets.Version()
	if r.current != nil && r.version == version {
		select {
		case <-r.current.stop:
		default:
			return r.current, nil
		}
	}
	if r.current != nil {
		r.current.close()
		r.current = nil
	}
	s, err := r.open()
	if err != nil {
		return nil, err
	}
	r.current, r.version = s, version
	return s, nil
}

// errHostKey is of a server that is not the one that was meant.
var errHostKey = errors.New("the server's host key is not one of hostKeys")

func (r *remote) open() (*session, error) {
	user, methods, err := r.credentials()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout) //nolint:forbidigo // a connection outlives who asks for it first
	defer cancel()
	raw, err := r.rt.Dial(ctx, "tcp", r.address)
	if err != nil {
		return nil, r.unavailable(err)
	}
	conn := &watched{raw}
	_ = conn.SetDeadline(time.Now().Add(connectTimeout))
	var refused error
	made, channels, requests, err := ssh.NewClientConn(conn, r.address, &ssh.ClientConfig{
		User: user, Auth: methods, Timeout: connectTimeout, ClientVersion: "SSH-2.0-MetIP",
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			have := ssh.FingerprintSHA256(key)
			for _, wanted := range r.hostKeys {
				if wanted == have {
					return nil
				}
			}
			refused = fmt.Errorf("%w: it shows %s (%s)", errHostKey, have, key.Type())
			return refused
		},
	})
	if err != nil {
		_ = raw.Close()
		if refused != nil {
			return nil, sdk.Unavailable(contract.ReasonCertificateInvalid, fmt.Errorf("%s: %w", r.endpoint, refused))
		}
		if strings.Contains(err.Error(), "unable to authenticate") {
			return nil, sdk.Unavailable(contract.ReasonAuthenticationFailed, fmt.Errorf("%s: the server refuses the user name, the password or the key", r.endpoint))
		}
		return nil, r.unavailable(err)
	}
	client := ssh.NewClient(made, channels, requests)
	files, err := sftp.NewClient(client, sftp.MaxConcurrentRequestsPerFile(16))
	if err != nil {
		_ = client.Close()
		return nil, r.unavailable(fmt.Errorf("the server has no SFTP for us: %w", err))
	}
	s := &session{Client: files, ssh: client, conn: conn, stop: make(chan struct{})}
	go r.watch(s)
	return s, nil
}

// credentials that the Secret holds now.
func (r *remote) credentials() (string, []ssh.AuthMethod, error) {
	a := r.rt.Config.Auth
	missing := func(format string, args ...any) error {
		return sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("Secret %s, key %s: %w", a.SecretName, strings.Join(a.Keys, " or "), fmt.Errorf(format, args...)))
	}
	if a.Kind == contract.AuthSSH {
		raw, err := r.rt.Secrets.Get(contract.FileSSHKey)
		if err != nil {
			return "", nil, err
		}
		signer, err := ssh.ParsePrivateKey(append(bytes.TrimSpace(raw), '\n'))
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			return "", nil, missing("the private key has a passphrase: store one without")
		case err != nil:
			return "", nil, missing("it is no private key")
		}
		return a.User, []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	}
	user, err := r.rt.Secrets.Get(contract.FileUsername)
	if err != nil {
		return "", nil, err
	}
	password, err := r.rt.Secrets.Get(contract.FilePassword)
	if err != nil {
		return "", nil, err
	}
	if len(user) == 0 || len(password) == 0 {
		return "", nil, missing("the value is empty")
	}
	return string(user), []ssh.AuthMethod{
		ssh.Password(string(password)),
		ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = string(password)
			}
			return answers, nil
		}),
	}, nil
}

// watch a connection: one that rests is asked for a sign of life, and ends when there is none.
func (r *remote) watch(s *session) {
	ended := make(chan struct{})
	go func() {
		_ = s.ssh.Wait()
		close(ended)
	}()
	ticker := time.NewTicker(aliveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			select {
			case <-s.stop: // it was ended here
			default:
				if r.onLost != nil {
					r.onLost(sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("%s: the connection is lost", r.endpoint)))
				}
			}
			s.close()
			return
		case <-s.stop:
			return
		case <-ticker.C:
			go func() { _, _, _ = s.ssh.SendRequest("keepalive@openssh.com", true, nil) }() // without an answer the deadline passes
		}
	}
}

func (s *session) close() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.conn.Conn.Close()
		_ = s.ssh.Close()
		_ = s.Client.Close()
	})
}

// with a session f is called; one that turns out to be lost is made anew once, before anything is done over it.
func (r *remote) with(f func(*session) error) error {
	s, err := r.session()
	if err != nil {
		return err
	}
	err = f(s)
	if err == nil {
		return nil
	}
	if lost(err) {
		s.close()
	}
	return err
}

// lost tells an error of the connection from one of the file's.
func lost(err error) bool {
	var status *sftp.StatusError
	if errors.As(err, &status) {
		return status.FxCode() == sftp.ErrSSHFxConnectionLost || status.FxCode() == sftp.ErrSSHFxNoConnection
	}
	var dial net.Error
	return errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, net.ErrClosed) || errors.As(err, &dial)
}

// close for good.
func (r *remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil {
		r.current.close()
	}
}

// unavailable is the state of a server that cannot be reached, or of a folder that does not work.
func (r *remote) unavailable(err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	reason := contract.ReasonSystemError
	var dial *net.OpError
	if lost(err) || errors.As(err, &dial) || strings.Contains(err.Error(), "ssh: ") {
		reason = contract.ReasonConnectionFailed
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %s", r.endpoint, oneline.Excerpt(err.Error(), 300)))
}
