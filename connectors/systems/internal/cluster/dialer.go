package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	// Timeout of a connection until its protocol is open.
	Timeout = 5 * time.Second
	// alertWait is how long a server that breaks off is given to say that it is our certificate's fault.
	alertWait = time.Second
)

// Proof is what a connection was made with: another one makes another connection.
type Proof struct {
	// User and Password are empty where nobody proves anything by them.
	User, Password string
	certificates   uint64
}

// Dialer makes connections to the servers of a cluster.
type Dialer struct {
	Runtime sdk.Runtime
	Servers []Server
	schemes Schemes
	// explain makes the state of a server of an error.
	explain func(endpoint string, err error) error
	tls     *tlsfiles.Client // nil: not encrypted
	next    atomic.Uint32    // the server that is tried first
}

// New dialer. explain makes an *sdk.UnavailableError of why a server cannot be connected to.
func New(rt sdk.Runtime, schemes Schemes, servers []Server, secure bool, explain func(endpoint string, err error) error) *Dialer {
	d := &Dialer{Runtime: rt, Servers: servers, schemes: schemes, explain: explain}
	if secure {
		d.tls = tlsfiles.NewClient(rt, servers[0].Host)
	}
	return d
}

// Proof is what the Secrets hold now.
func (d *Dialer) Proof() (p Proof, config *tls.Config, err error) {
	if d.Runtime.Config.Auth.Kind == contract.AuthBasic {
		user, err := d.Runtime.Secrets.Get(contract.FileUsername)
		if err != nil {
			return p, nil, err
		}
		password, err := d.Runtime.Secrets.Get(contract.FilePassword)
		if err != nil {
			return p, nil, err
		}
		p.User, p.Password = string(user), string(password)
	}
	if d.tls != nil {
		config, p.certificates, err = d.tls.Config()
	}
	return p, config, err
}

// Outdated tells whether the Secrets hold something else than a connection was made with. What cannot be read changes nothing.
func (d *Dialer) Outdated(made Proof) bool {
	p, _, err := d.Proof()
	return err == nil && p != made
}

// Conn is a connection whose protocol is to be opened.
type Conn struct {
	net.Conn
	Server Server
	Proof  Proof
	// Raw is the connection below TLS: to close it ends everything at once.
	Raw net.Conn
}

// Dial one of the servers, first the one that has answered last, and open the protocol over it; what knows no context there breaks off with it.
func Dial[L any](ctx context.Context, d *Dialer, open func(context.Context, Conn) (L, error)) (link L, err error) {
	p, config, err := d.Proof()
	if err != nil {
		return link, err
	}
	first := int(d.next.Load())
	for i := range d.Servers {
		n := (first + i) % len(d.Servers)
		if link, err = dial(ctx, d, d.Servers[n], p, config, open); err == nil {
			d.next.Store(uint32(n))
			return link, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return link, err
}

func dial[L any](ctx context.Context, d *Dialer, s Server, p Proof, config *tls.Config, open func(context.Context, Conn) (L, error)) (link L, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	raw, err := d.Runtime.Dial(ctx, "tcp", s.Address)
	if err != nil {
		return link, d.explain(s.Endpoint, err)
	}
	// The handshakes know no context: its end closes the connection below them.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn := raw
	if config != nil {
		if conn, err = d.secure(ctx, raw, s, config); err != nil {
			_ = raw.Close()
			return link, d.explain(s.Endpoint, err)
		}
	}
	link, err = open(ctx, Conn{conn, s, p, raw})
	if err == nil && !stop() {
		err = ctx.Err() // raw was closed just now
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		var none L
		return none, d.explain(s.Endpoint, err)
	}
	return link, nil
}

func (d *Dialer) secure(ctx context.Context, raw net.Conn, s Server, config *tls.Config) (net.Conn, error) {
	config = config.Clone()
	if d.Runtime.Config.TLS == nil || d.Runtime.Config.TLS.ServerName == "" {
		config.ServerName = s.Host
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		var record tls.RecordHeaderError
		if errors.As(err, &record) {
			err = fmt.Errorf("%w (does the port speak without TLS? then write %s:// in servers)", err, d.schemes.Plain)
		}
		return nil, err
	}
	if len(config.Certificates) > 0 {
		return &alertConn{Conn: conn, ended: make(chan struct{})}, nil
	}
	return conn, nil
}

// alertConn tells why a server breaks off that does not like our certificate: in TLS 1.3 it says so after the handshake, when we may be
// writing already, and a write fails without the reason, which only reads give.
type alertConn struct {
	net.Conn
	reading atomic.Int32
	once    sync.Once
	ended   chan struct{} // closed when a read has failed, with err
	err     error
}

// Read implements net.Conn.
func (c *alertConn) Read(b []byte) (int, error) {
	c.reading.Add(1)
	defer c.reading.Add(-1)
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() {
			c.err = err
			close(c.ended)
		})
	}
	return n, err
}

// Write implements net.Conn.
func (c *alertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	if c.reading.Load() == 0 { // the protocol is being opened, and nobody reads
		_ = c.SetReadDeadline(time.Now().Add(alertWait))
		var rest [512]byte
		for cause := error(nil); cause == nil; {
			_, cause = c.Read(rest[:])
		}
	}
	select {
	case <-c.ended:
		if tlsfiles.IsCertificateError(c.err) {
			err = c.err
		}
	case <-time.After(alertWait):
	}
	return n, err
}
