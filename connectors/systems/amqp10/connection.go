package amqp10

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	closeTimeout = 2 * time.Second
	// maxUnanswered is how many ends of sessions a server may leave without an answer until its connection is replaced.
	maxUnanswered = 64
	// maxExcerpt of what a server says, in an error.
	maxExcerpt = 300
)

// unsettled is how messages travel: the receiver says what has become of each.
var unsettled = amqp.SenderSettleModeUnsettled

func newDialer(rt sdk.Runtime, o *connectionOptions) (*cluster.Dialer, error) {
	servers, secure, err := o.parse()
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthBasic, contract.AuthAnonymous:
	default:
		return nil, fmt.Errorf("auth %q is neither basic nor anonymous", rt.Config.Auth.Kind)
	}
	return cluster.New(rt, schemes, servers, secure, unavailable), nil
}

// link is a connection that is open.
type link struct {
	*amqp.Conn
	proof    cluster.Proof
	endpoint string
	raw      net.Conn
	// unanswered ends of sessions. The library keeps such a session, with its number, as long as the connection lasts.
	unanswered atomic.Int32
}

// dial one of the servers. wrap is put around the connection, below the protocol and above TLS; nil for nothing.
func dial(ctx context.Context, d *cluster.Dialer, o *connectionOptions, wrap func(net.Conn) net.Conn) (*link, error) {
	who := d.Runtime.Config.Connector
	return cluster.Dial(ctx, d, func(ctx context.Context, c cluster.Conn) (*link, error) {
		conn := net.Conn(&frames{Conn: c.Conn})
		if wrap != nil {
			conn = wrap(conn)
		}
		host := o.Hostname
		if host == "" {
			host = c.Server.Host
		}
		connection, err := amqp.NewConn(ctx, conn, &amqp.ConnOptions{
			HostName: host, ContainerID: "metip " + who.Namespace + "/" + who.Name, MaxFrameSize: maxFrame, SASLType: mechanism(d.Runtime.Config, c.Proof),
			IdleTimeout: 3 * time.Duration(o.Heartbeat), WriteTimeout: 3 * time.Duration(o.Heartbeat), Properties: map[string]any{"product": "metip"},
		})
		if err != nil {
			return nil, err
		}
		return &link{Conn: connection, proof: c.Proof, endpoint: c.Server.Endpoint, raw: c.Raw}, nil
	})
}

// mechanism of SASL: who we are says the password, the client certificate, or nobody.
func mechanism(c *contract.Config, p cluster.Proof) amqp.SASLType {
	switch {
	case c.Auth.Kind == contract.AuthBasic:
		return amqp.SASLTypePlain(p.User, p.Password)
	case c.TLS != nil && c.TLS.Certificate:
		return amqp.SASLTypeExternal("")
	}
	return amqp.SASLTypeAnonymous()
}

// Alive implements cluster.Link.
func (l *link) Alive() error {
	select {
	case <-l.Done():
		return unavailable(l.endpoint, l.why())
	default:
	}
	if l.unanswered.Load() >= maxUnanswered {
		return unavailable(l.endpoint, errors.New("the connection is worn out: the server has not answered the ends of its sessions"))
	}
	return nil
}

// leave a session, whose answer nobody waits for: under load RabbitMQ 3 leaves one end in a hundred without any.
func (l *link) leave(ctx context.Context, session *amqp.Session) {
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := session.Close(ctx); errors.Is(err, context.DeadlineExceeded) {
			l.unanswered.Add(1)
		}
	}()
}

// why the connection has ended.
func (l *link) why() error {
	if err := l.Err(); err != nil {
		return err
	}
	return net.ErrClosed
}

// Made implements cluster.Link.
func (l *link) Made() cluster.Proof { return l.proof }

// End implements cluster.Link. A server that does not take the end in is left soon.
func (l *link) End() {
	timer := time.AfterFunc(closeTimeout, func() { _ = l.raw.Close() })
	defer timer.Stop()
	_ = l.Close()
}

// ping asks the server for a sign of life.
func (l *link) ping(ctx context.Context) error {
	inner, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	session, err := l.NewSession(inner, nil)
	switch {
	case err == nil:
		l.leave(ctx, session)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case inner.Err() != nil:
		err = errors.New("no answer in time")
	}
	return unavailable(l.endpoint, err)
}

// addressError is the state of a server that an address fails at.
func addressError(endpoint, address string, err error) error {
	answer := remote(err)
	if answer == nil {
		var closed *amqp.LinkError
		if errors.As(err, &closed) {
			return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: address %s: %s", endpoint, address, describe(err)))
		}
		return unavailable(endpoint, err)
	}
	return sdk.Unavailable(reasonOf(answer), fmt.Errorf("%s: address %s: %w", endpoint, address, &serverError{describe(err), err}))
}

// remote is what the server says, if it is about the link or the session; nil if it is not.
func remote(err error) *amqp.Error {
	var answer *amqp.Error
	var connection *amqp.ConnError
	if errors.As(err, &connection) || !errors.As(err, &answer) {
		return nil
	}
	return answer
}

func reasonOf(answer *amqp.Error) string {
	switch answer.Condition {
	case amqp.ErrCondUnauthorizedAccess:
		return contract.ReasonAuthenticationFailed
	case amqp.ErrCondConnectionForced, amqp.ErrCondDetachForced:
		return contract.ReasonConnectionFailed
	}
	return contract.ReasonSystemError
}

// unavailable is the state of a server that a connection, or what is asked over it, fails at.
func unavailable(endpoint string, err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	reason := contract.ReasonConnectionFailed
	var answer *amqp.Error
	text := describe(err)
	switch {
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	case errors.As(err, &answer):
		reason = reasonOf(answer)
	case strings.HasPrefix(text, "SASL PLAIN auth failed with code 0x1"): // the library says PLAIN of each mechanism
		reason, text = contract.ReasonAuthenticationFailed, "the server refuses who we say we are: the user name or the password is wrong, or the certificate is nobody's"
	case strings.Contains(text, "no supported auth mechanism"):
		reason = contract.ReasonAuthenticationFailed
		text = strings.Replace(text, "no supported auth mechanism", "the server does not take the way in which auth proves who we are, but", 1)
	case strings.Contains(text, "unexpected protocol header 0x3"):
		reason, text = contract.ReasonAuthenticationFailed, "the server asks for a user name and a password: set auth.basic"
	case strings.Contains(text, "settlement mode"):
		reason, text = contract.ReasonSystemError, "the server would settle messages by itself, before the bus has them: "+text
	case strings.Contains(text, "unexpected protocol"), strings.Contains(text, "does not speak AMQP"):
		reason = contract.ReasonSystemError
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", endpoint, &serverError{text, err}))
}

// serverError is an error in our words.
type serverError struct {
	text string
	err  error
}

func (e *serverError) Error() string { return e.text }

func (e *serverError) Unwrap() error { return e.err }

// describe an error as the server words it.
func describe(err error) string {
	var answer *amqp.Error
	switch {
	case errors.As(err, &answer):
		text := oneline.Excerpt(answer.Description, maxExcerpt)
		if text == "" {
			return oneline.Excerpt(string(answer.Condition), maxExcerpt)
		}
		return fmt.Sprintf("%s (%s)", text, oneline.Excerpt(string(answer.Condition), maxExcerpt))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), strings.HasSuffix(err.Error(), "EOF"), strings.HasSuffix(err.Error(), " closed"):
		return "the server has closed the connection"
	case errors.Is(err, os.ErrDeadlineExceeded), strings.HasSuffix(err.Error(), "i/o timeout"):
		return "the server is silent"
	}
	return oneline.Excerpt(err.Error(), maxExcerpt)
}
