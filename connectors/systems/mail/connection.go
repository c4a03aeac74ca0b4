package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 5 * time.Second
	closeTimeout   = 2 * time.Second
	// certificateWait is how long a server that breaks off is given to say that it is our certificate's fault.
	certificateWait = time.Second
	// maxAnswers of a server to one message, in bytes.
	maxAnswers = 1 << 20
	// maxExcerpt of what a server says, in an error.
	maxExcerpt = 240
)

// proof is what a connection was made with: another one makes another connection.
type proof struct {
	user, password string
	certificates   uint64
}

// dialer makes connections.
type dialer struct {
	rt                sdk.Runtime
	options           connectionOptions
	address, endpoint string
	tls               *tlsfiles.Client // nil: not encrypted
}

func newDialer(rt sdk.Runtime, o connectionOptions) (*dialer, error) {
	address, endpoint, err := o.server()
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthBasic, contract.AuthAnonymous:
	default:
		return nil, fmt.Errorf("auth %q is neither basic nor anonymous", rt.Config.Auth.Kind)
	}
	d := &dialer{rt: rt, options: o, address: address, endpoint: endpoint}
	if o.Encryption != encryptDisabled {
		d.tls = tlsfiles.NewClient(rt, o.Host)
	}
	return d, nil
}

// proof is what the Secrets hold now.
func (d *dialer) proof() (p proof, config *tls.Config, err error) {
	if d.rt.Config.Auth.Kind == contract.AuthBasic {
		user, err := d.rt.Secrets.Get(contract.FileUsername)
		if err != nil {
			return p, nil, err
		}
		password, err := d.rt.Secrets.Get(contract.FilePassword)
		if err != nil {
			return p, nil, err
		}
		p.user, p.password = string(user), string(password)
		if strings.ContainsRune(p.user+p.password, 0) {
			return p, nil, sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("Secret %s: SMTP carries no user name or password with a zero byte", d.rt.Config.Auth.SecretName))
		}
	}
	if d.tls != nil {
		config, p.certificates, err = d.tls.Config()
	}
	return p, config, err
}

// outdated tells whether the Secrets hold something else than a session was made with. What cannot be read changes nothing.
func (d *dialer) outdated(s *session) bool {
	p, _, err := d.proof()
	return err == nil && p != s.proof
}

// wire is the connection below TLS. It reads no more for one message than a sane server says.
type wire struct {
	net.Conn
	left atomic.Int64
}

var errChatty = fmt.Errorf("the server has answered more than %d KiB", maxAnswers>>10)

// Read from the connection.
func (w *wire) Read(b []byte) (int, error) {
	if w.left.Load() <= 0 {
		return 0, errChatty
	}
	n, err := w.Conn.Read(b)
	w.left.Add(-int64(n))
	return n, err
}

// session is a connection that is open, greeted and authenticated.
type session struct {
	wire   *wire
	client *smtp.Client
	proof  proof
	// maxSize of a message that the server takes; 0: it does not say.
	maxSize int64
	// international: it takes addresses that are not of ASCII alone.
	international bool
	// used: something was sent over it before, and it may have ended meanwhile.
	used bool
}

func (d *dialer) dial(ctx context.Context) (*session, error) {
	p, config, err := d.proof()
	if err != nil {
		return nil, err
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := d.rt.Dial(ctx, "tcp", d.address)
	if err == nil {
		var s *session
		if s, err = d.greet(ctx, conn, p, config); err == nil {
			return s, nil
		}
		_ = conn.Close()
	}
	if outer.Err() != nil {
		return nil, outer.Err()
	}
	if ctx.Err() != nil {
		err = errors.New("no answer in time")
	}
	return nil, d.unavailable(err)
}

func (d *dialer) greet(ctx context.Context, raw net.Conn, p proof, config *tls.Config) (*session, error) {
	// The protocol knows no context: its end closes the connection below.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	s := &session{wire: &wire{Conn: raw}, proof: p}
	s.wire.left.Store(maxAnswers)
	var conn net.Conn = s.wire
	if d.options.Encryption == encryptImplicit {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	var err error
	if s.client, err = smtp.NewClient(conn, d.options.Host); err != nil {
		return nil, err
	}
	if err = s.client.Hello(greeting(raw)); err != nil {
		return nil, s.why(err)
	}
	if d.options.Encryption == encryptStartTLS {
		if offered, _ := s.client.Extension("STARTTLS"); !offered {
			return nil, sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: the server does not offer STARTTLS: set encryption Implicit, or Disabled for a server that has no TLS", d.endpoint))
		}
		if err = s.client.StartTLS(config); err != nil {
			return nil, s.why(err)
		}
	}
	if d.rt.Config.Auth.Kind == contract.AuthBasic {
		if err = d.authenticate(s, p); err != nil {
			return nil, err
		}
	}
	if limited, size := s.client.Extension("SIZE"); limited {
		s.maxSize, _ = strconv.ParseInt(size, 10, 64)
	}
	s.international, _ = s.client.Extension("SMTPUTF8")
	if !stop() {
		return nil, ctx.Err() // the connection was closed just now
	}
	return s, nil
}

// greeting is the address literal that a client without a public name says (RFC 5321, 4.1.4).
func greeting(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	ip := net.ParseIP(host)
	switch {
	case err != nil || ip == nil:
		return "localhost"
	case ip.To4() == nil:
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

// why a write failed: a server that does not like our certificate says so after the handshake, to who reads.
func (s *session) why(err error) error {
	if tlsfiles.IsCertificateError(err) {
		return err
	}
	var answer *textproto.Error
	if errors.As(err, &answer) {
		return err
	}
	_ = s.wire.SetReadDeadline(time.Now().Add(certificateWait))
	if _, cause := s.client.Text.R.Peek(1); tlsfiles.IsCertificateError(cause) {
		return cause
	}
	return err
}

// authenticate by the best that the server offers. PLAIN and LOGIN show the password, and need TLS.
func (d *dialer) authenticate(s *session, p proof) error {
	_, offer := s.client.Extension("AUTH")
	offered := strings.Fields(strings.ToUpper(offer))
	secure := d.tls != nil
	var auth smtp.Auth
	switch {
	case slices.Contains(offered, "SCRAM-SHA-256"):
		auth = smtp.ScramSHA256Auth(p.user, p.password)
	case slices.Contains(offered, "SCRAM-SHA-1"):
		auth = smtp.ScramSHA1Auth(p.user, p.password)
	case secure && slices.Contains(offered, "PLAIN"):
		auth = smtp.PlainAuth("", p.user, p.password, d.options.Host, false)
	case secure && slices.Contains(offered, "LOGIN"):
		auth = smtp.LoginAuth(p.user, p.password, d.options.Host, false)
	default:
		err := fmt.Errorf("%s: the server offers no way to authenticate that is known (AUTH %q)", d.endpoint, oneline.Excerpt(offer, maxExcerpt))
		if !secure {
			err = fmt.Errorf("%w: without TLS only SCRAM is used, for PLAIN and LOGIN would show the password", err)
		}
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, err)
	}
	err := s.client.Auth(auth)
	if err == nil {
		return nil
	}
	text := oneline.Excerpt(err.Error(), maxExcerpt)
	if len(p.password) > 3 {
		text = strings.ReplaceAll(text, p.password, "***")
	}
	var answer *textproto.Error
	var network net.Error
	reason := contract.ReasonAuthenticationFailed
	switch {
	case errors.As(err, &answer) && answer.Code < 500:
		reason = contract.ReasonSystemError // it cannot say now
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		reason = contract.ReasonConnectionFailed
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: user %q: %s", d.endpoint, p.user, text))
}

// leave in order.
func (s *session) leave() {
	_ = s.wire.SetDeadline(time.Now().Add(closeTimeout))
	_ = s.client.Quit()
	_ = s.wire.Close()
}

// drop the connection without a word.
func (s *session) drop() { _ = s.wire.Close() }

// unavailable is the state of a server that a connection, or what is asked over it, fails at.
func (d *dialer) unavailable(err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	reason := contract.ReasonConnectionFailed
	var answer *textproto.Error
	var garbled textproto.ProtocolError
	var record tls.RecordHeaderError
	switch {
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	case errors.As(err, &answer):
		if answer.Code != 421 {
			reason = contract.ReasonSystemError
		}
		err = said(answer)
	case errors.As(err, &garbled):
		reason, err = contract.ReasonSystemError, fmt.Errorf("the server does not speak SMTP: %s", oneline.Excerpt(err.Error(), maxExcerpt))
	case errors.As(err, &record):
		err = fmt.Errorf("%w (does the port begin without TLS? then set encryption StartTLS)", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the server has closed the connection")
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", d.endpoint, err))
}

// said is an answer of the server's, in one line, with its enhanced code.
func said(answer *textproto.Error) error {
	return errors.New(oneline.Excerpt(answer.Error(), maxExcerpt))
}
