package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const closeTimeout = 2 * time.Second

func newDialer(rt sdk.Runtime, o *connectionOptions) (*cluster.Dialer, error) {
	servers, secure, err := o.parse()
	if err != nil {
		return nil, err
	}
	if rt.Config.Auth.Kind != contract.AuthBasic {
		return nil, fmt.Errorf("auth %q: RabbitMQ needs a user name and a password (basic)", rt.Config.Auth.Kind)
	}
	return cluster.New(rt, schemes, servers, secure, openError), nil
}

// link is a connection that is open.
type link struct {
	*amqp.Connection
	proof    cluster.Proof
	endpoint string
	raw      net.Conn
	// blocked is why the server takes no messages at present; nil while it does.
	blocked atomic.Pointer[string]
	// lost is closed with the connection; cause is why, and set before.
	lost  chan struct{}
	cause error
}

func newHolder(d *cluster.Dialer, o *connectionOptions) *cluster.Holder[*link] {
	return cluster.NewHolder(d, func(ctx context.Context) (*link, error) { return dial(ctx, d, o, nil) })
}

// dial one of the servers. wrap is put around the connection, below the protocol and above TLS; nil for nothing.
func dial(ctx context.Context, d *cluster.Dialer, o *connectionOptions, wrap func(net.Conn) net.Conn) (*link, error) {
	who := d.Runtime.Config.Connector.Namespace + "/" + d.Runtime.Config.Connector.Name
	return cluster.Dial(ctx, d, func(_ context.Context, c cluster.Conn) (*link, error) {
		conn := c.Conn
		if wrap != nil {
			conn = wrap(conn)
		}
		connection, err := amqp.Open(conn, amqp.Config{
			SASL: []amqp.Authentication{&amqp.PlainAuth{Username: c.Proof.User, Password: c.Proof.Password}}, Vhost: o.VirtualHost, Heartbeat: time.Duration(o.Heartbeat),
			Locale: "en_US", Properties: amqp.Table{"product": "metip", "connection_name": "metip " + who},
		})
		if err != nil {
			return nil, err
		}
		l := &link{Connection: connection, proof: c.Proof, endpoint: c.Server.Endpoint, raw: c.Raw, lost: make(chan struct{})}
		go l.watch(connection.NotifyClose(make(chan *amqp.Error, 1)), connection.NotifyBlocked(make(chan amqp.Blocking, 8)))
		return l, nil
	})
}

func (l *link) watch(closed chan *amqp.Error, blocked chan amqp.Blocking) {
	defer close(l.lost)
	for {
		select {
		case err := <-closed:
			if err != nil {
				l.cause = err
			} else {
				l.cause = amqp.ErrClosed
			}
			return
		case b, ok := <-blocked:
			switch {
			case !ok:
				blocked = nil
			case b.Active:
				l.blocked.Store(&b.Reason)
			default:
				l.blocked.Store(nil)
			}
		}
	}
}

// Alive says nil while the connection is open, and else why it is not.
func (l *link) Alive() error {
	select {
	case <-l.lost:
		return unavailable(l.endpoint, l.cause)
	default:
		if l.IsClosed() {
			return unavailable(l.endpoint, amqp.ErrClosed)
		}
		return nil
	}
}

// End the connection in order, with what was sent before; a server that does not answer is left soon.
func (l *link) End() {
	_ = l.CloseDeadline(time.Now().Add(closeTimeout))
	_ = l.raw.Close()
	<-l.lost
}

// Made implements cluster.Link.
func (l *link) Made() cluster.Proof { return l.proof }

// within runs f, whose calls know no context. When ctx ends and f goes on for longer than a moment, the connection is broken off under it.
func (l *link) within(ctx context.Context, f func() error) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(time.Second):
			_ = l.raw.Close()
		}
	})
	err := f()
	close(done)
	if !stop() && err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// check asks the server for a sign of life.
func check(ctx context.Context, h *cluster.Holder[*link]) error {
	ctx, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	l, err := h.Get(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = h.Silent()
		}
		return err
	}
	defer h.Release(l)
	if reason := l.blocked.Load(); reason != nil {
		return blockedError(l.endpoint, *reason)
	}
	err = l.within(ctx, func() error {
		channel, err := l.Channel()
		if err == nil {
			err = channel.Close()
		}
		return err
	})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = errors.New("no answer in time")
	}
	return unavailable(l.endpoint, err)
}

// openError is the state of a server that a connection cannot be made to.
func openError(endpoint string, err error) error {
	var answer *amqp.Error
	refused := errors.Is(err, amqp.ErrCredentials) || errors.As(err, &answer) && answer.Server && answer.Code == amqp.AccessRefused
	if refused && !tlsfiles.IsCertificateError(err) {
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, fmt.Errorf("%s: the server refuses the user name or the password", endpoint))
	}
	return unavailable(endpoint, err)
}

// unavailable is the state of a server that a connection, or what is asked over it, fails at.
func unavailable(endpoint string, err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	reason := contract.ReasonConnectionFailed
	var answer *amqp.Error
	switch {
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	case errors.As(err, &answer) && answer.Server && answer.Code != amqp.ConnectionForced:
		reason = contract.ReasonSystemError
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %s", endpoint, describe(err)))
}

// describe an error as the server words it.
func describe(err error) string {
	var answer *amqp.Error
	switch {
	case errors.Is(err, amqp.ErrClosed):
		return "the connection is closed"
	case errors.As(err, &answer) && answer.Server:
		return fmt.Sprintf("%s (%d)", answer.Reason, answer.Code)
	case errors.As(err, &answer):
		return "the connection is lost: " + answer.Reason
	}
	return err.Error()
}

func blockedError(endpoint, reason string) error {
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: the server takes no messages: %s", endpoint, reason))
}
