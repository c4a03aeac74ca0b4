package nats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 3 * time.Second
	pingInterval   = 5 * time.Second
	maxReconnect   = 3 * time.Second
)

// dialer connects to the servers.
type dialer struct {
	rt      sdk.Runtime
	servers string
	inbox   string
	// tls is nil where the servers speak plain NATS.
	tls *tlsfiles.Client
}

func newDialer(rt sdk.Runtime, o connectionOptions) (*dialer, error) {
	hosts, err := o.hosts()
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthNone, contract.AuthAnonymous, contract.AuthBasic, contract.AuthBearer:
	default:
		return nil, fmt.Errorf("auth %q is not one of anonymous, basic and bearer", rt.Config.Auth.Kind)
	}
	d := &dialer{rt: rt, servers: strings.Join(o.Servers, ","), inbox: o.InboxPrefix}
	if strings.HasPrefix(o.Servers[0], "tls://") {
		d.tls = tlsfiles.NewClient(rt, hosts[0])
	}
	return d, nil
}

// connect with what the Secrets hold now.
func (d *dialer) connect(ctx context.Context, more ...client.Option) (*client.Conn, error) {
	options := []client.Option{
		client.Name("metip " + d.rt.Config.Connector.Namespace + "/" + d.rt.Config.Connector.Name),
		client.SetCustomDialer(checkedDialer{context.WithoutCancel(ctx), d.rt}), client.IgnoreDiscoveredServers(),
		client.Timeout(connectTimeout), client.PingInterval(pingInterval), client.MaxPingsOutstanding(2),
		client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
			d.rt.Log.Warn("the NATS server reports an error", "error", err)
		}),
	}
	if d.inbox != "" {
		options = append(options, client.CustomInboxPrefix(d.inbox))
	}
	auth, err := d.authentication()
	if err != nil {
		return nil, err
	}
	options = append(options, auth...)
	if d.tls != nil {
		config, _, err := d.tls.Config()
		if err != nil {
			return nil, err
		}
		config = config.Clone()
		config.ServerName = serverName(d.rt.Config.TLS) // empty: each server's own name
		options = append(options, client.Secure(config))
	}
	nc, err := client.Connect(d.servers, append(options, more...)...)
	if err != nil {
		return nil, d.unavailable(err)
	}
	return nc, nil
}

func serverName(spec *contract.TLS) string {
	if spec == nil {
		return ""
	}
	return spec.ServerName
}

// authentication by what the Secret holds now; another value makes another connection.
func (d *dialer) authentication() ([]client.Option, error) {
	value := func(file string) (string, error) {
		b, err := d.rt.Secrets.Get(file)
		return strings.TrimSpace(string(b)), err
	}
	switch d.rt.Config.Auth.Kind {
	case contract.AuthBasic:
		user, err := value(contract.FileUsername)
		if err != nil {
			return nil, err
		}
		password, err := value(contract.FilePassword)
		return []client.Option{client.UserInfo(user, password)}, err
	case contract.AuthBearer:
		token, err := value(contract.FileToken)
		return []client.Option{client.Token(token)}, err
	}
	return nil, nil
}

func (d *dialer) showsCertificate() bool {
	return d.tls != nil && d.rt.Config.TLS != nil && d.rt.Config.TLS.Certificate
}

// unavailable is the state of servers that cannot be reached, or do not let us in.
func (d *dialer) unavailable(err error) error {
	if err == nil {
		err = client.ErrDisconnected
	}
	reason := contract.ReasonConnectionFailed
	switch {
	case errors.Is(err, client.ErrAuthorization) || errors.Is(err, client.ErrAuthExpired) || errors.Is(err, client.ErrAuthRevoked) ||
		strings.Contains(strings.ToLower(err.Error()), "authorization violation"):
		reason = contract.ReasonAuthenticationFailed
	case tlsfiles.IsCertificateError(err), d.showsCertificate() && strings.Contains(err.Error(), "after TLS handshake"):
		// In TLS 1.3 our certificate is refused after the handshake, and the answer may be lost with the connection.
		reason = contract.ReasonCertificateInvalid
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", d.servers, err))
}

// checkedDialer refuses the addresses that no system has.
type checkedDialer struct {
	ctx context.Context
	rt  sdk.Runtime
}

func (d checkedDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, connectTimeout)
	defer cancel()
	return d.rt.Dial(ctx, network, address)
}

// link is one connection that comes back by itself, and is made anew when the Secrets have changed.
type link struct {
	*dialer

	mu sync.Mutex
	nc *client.Conn
	// version of the Secrets that nc was made with.
	version uint64
	// lost is why nc is not connected.
	lost error
}

func newLink(rt sdk.Runtime, o connectionOptions) (*link, error) {
	d, err := newDialer(rt, o)
	if err != nil {
		return nil, err
	}
	return &link{dialer: d}, nil
}

// Close the connection.
func (l *link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nc != nil {
		l.nc.Close()
	}
	return nil
}

// Check connects if need be, and asks the server for a sign of life. Whether anybody answers on a subject, or stores what is published there, only use can tell.
func (l *link) Check(ctx context.Context) error {
	nc, err := l.conn(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return l.unavailable(err)
	}
	return nil
}

// conn is the connection; a new one at first, and when the Secrets have changed.
func (l *link) conn(ctx context.Context) (*client.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	version := l.rt.Secrets.Version()
	if l.nc != nil && l.version == version {
		if l.nc.IsConnected() {
			return l.nc, nil
		}
		return nil, l.unavailable(l.lost)
	}
	nc, err := l.connect(ctx,
		client.MaxReconnects(-1), client.IgnoreAuthErrorAbort(), client.ReconnectBufSize(-1),
		client.CustomReconnectDelay(func(attempts int) time.Duration { return min(50*time.Millisecond<<min(attempts, 7), maxReconnect) }),
		client.DisconnectErrHandler(l.disconnected), client.ReconnectErrHandler(l.disconnected))
	if err != nil {
		return nil, err
	}
	if l.nc != nil {
		_ = l.nc.Drain() // what waits on it is still answered
	}
	l.nc, l.version, l.lost = nc, version, nil
	return nc, nil
}

func (l *link) disconnected(nc *client.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nc == nil || l.nc == nc {
		l.lost = err
	}
}
