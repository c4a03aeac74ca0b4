package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/metip/metip/connectors/contract"
)

// Timing of the connection to the broker.
const (
	pingInterval = 3 * time.Second
	maxPingsOut  = 2
	dialTimeout  = 3 * time.Second
	maxReconnect = 3 * time.Second
	// credsPoll is how often the credentials' file is looked at: kubelet swaps symbolic links, and a watch can be missed.
	credsPoll = 5 * time.Second
)

// errLost is what work in flight gets when the connection breaks: it may or may not have been done.
var errLost = errors.New("the connection to the broker broke")

// connection is the pod's one connection to the broker, as its user of account EDGE. It reconnects for ever.
type connection struct {
	nc    *nats.Conn
	log   *slog.Logger
	creds string
	inbox string

	mu sync.Mutex
	up bool
	// why it is down, and since when.
	err   error
	since time.Time
	// denied is the last operation that the broker refused for lack of permission; a later success clears it.
	denied error

	// onChange is told of every change; set before open. The others, of every connection, break and refused subject.
	onChange  func()
	listeners []listener
	// closing: the break that comes is wanted.
	closing bool
	// used is the JWT that the broker was shown last.
	used string
}

// listener is told what becomes of the connection. Any of its functions may be nil.
type listener struct {
	up, down func()
	denied   func(subject string)
	// settle comes before a break that is wanted: it begins nothing new until up, and returns when nothing is under way that the break
	// would cut off, or soon.
	settle func()
}

func (c *connection) listen(l listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, l)
}

func (c *connection) tell(f func(listener)) {
	c.mu.Lock()
	all := c.listeners
	c.mu.Unlock()
	for _, l := range all {
		f(l)
	}
}

func newConnection(c *contract.Config, creds string, log *slog.Logger) *connection {
	return &connection{
		log: log, creds: creds, inbox: contract.InboxPrefix(c.Connector.Namespace, c.Connector.Name),
		err: errors.New("not connected yet"), since: time.Now(), onChange: func() {},
	}
}

// open starts to connect. It returns an error only when it can never work; a broker that is away is no error.
func (c *connection) open(cfg *contract.Config, pod string) error {
	options := []nats.Option{
		nats.Name("metip " + cfg.Connector.Namespace + "/" + cfg.Connector.Name + " " + pod),
		nats.UserJWT(c.present, c.sign),
		nats.CustomInboxPrefix(c.inbox),
		// The servers are those of the configuration, by the names that are in their certificates.
		nats.IgnoreDiscoveredServers(),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectDelay),
		// Nothing is kept for later while the broker is away: what is published then fails at once and is tried again by who waits for it.
		nats.ReconnectBufSize(-1),
		nats.Timeout(dialTimeout), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPingsOut), nats.FlusherTimeout(5 * time.Second),
		nats.ConnectHandler(c.setUp), nats.ReconnectHandler(c.setUp),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.setDown(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.setDown(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.asyncError(err) }),
		nats.LameDuckModeHandler(func(*nats.Conn) { go c.leave() }),
	}
	if cfg.Broker.CA != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(cfg.Broker.CA)) {
			return errors.New("broker.ca holds no certificate")
		}
		options = append(options, nats.Secure(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}))
	}
	nc, err := nats.Connect(strings.Join(cfg.Broker.URLs, ","), options...)
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	c.nc = nc
	if nc.IsConnected() {
		c.setUp(nc)
	}
	return nil
}

func (c *connection) close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.nc.Close()
}

// reconnectDelay after the whole list of servers was tried in vain.
func reconnectDelay(attempts int) time.Duration {
	d := 50 * time.Millisecond << min(attempts, 7)
	return min(d, maxReconnect) * time.Duration(75+rand.IntN(50)) / 100
}

func (c *connection) userJWT() (string, error) {
	raw, err := os.ReadFile(c.creds)
	if err != nil {
		return "", fmt.Errorf("read the broker's credentials: %w", err)
	}
	return nkeys.ParseDecoratedJWT(raw)
}

// present the JWT to the broker.
func (c *connection) present() (string, error) {
	token, err := c.userJWT()
	c.mu.Lock()
	c.used = token
	c.mu.Unlock()
	return token, err
}

func (c *connection) sign(nonce []byte) ([]byte, error) {
	raw, err := os.ReadFile(c.creds)
	if err != nil {
		return nil, fmt.Errorf("read the broker's credentials: %w", err)
	}
	key, err := nkeys.ParseDecoratedUserNKey(raw)
	if err != nil {
		return nil, fmt.Errorf("the broker's credentials: %w", err)
	}
	defer key.Wipe()
	return key.Sign(nonce)
}

// setUp may run before open has set c.nc: the client tells of its connection from a goroutine of its own.
func (c *connection) setUp(nc *nats.Conn) {
	c.mu.Lock()
	was := c.up
	if !was {
		c.up, c.err, c.since = true, nil, time.Now()
	}
	c.mu.Unlock()
	if was {
		return
	}
	c.log.Info("connected to the broker", "server", nc.ConnectedUrlRedacted())
	c.tell(func(l listener) {
		if l.up != nil {
			l.up()
		}
	})
	c.onChange()
}

func (c *connection) setDown(err error) {
	if err == nil {
		err = errLost
	}
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	was := c.up
	if was {
		c.since = time.Now()
	}
	changed := was || c.err == nil || c.err.Error() != err.Error()
	c.up, c.err = false, err
	c.mu.Unlock()
	if was {
		c.tell(func(l listener) {
			if l.down != nil {
				l.down()
			}
		})
	}
	if changed {
		c.log.Warn("not connected to the broker", "error", err)
		c.onChange()
	}
}

// asyncError takes what the broker says without being asked: above all that a permission is missing, which a caller would otherwise
// only notice as a time-out.
func (c *connection) asyncError(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		c.log.Warn("the broker's connection reports an error", "error", err)
		return
	}
	if strings.Contains(err.Error(), `"`+contract.ReplyPrefix) {
		// An answer that came too late, or over another connection than its request: that says nothing of what the user may do.
		c.log.Debug("the broker refuses an answer", "error", err)
		return
	}
	c.mu.Lock()
	first := c.denied == nil
	c.denied = err
	if first {
		c.since = time.Now()
	}
	c.mu.Unlock()
	if first {
		c.log.Error("the broker refuses what this connector does", "error", err)
	}
	subject := err.Error()
	if i := strings.IndexByte(subject, '"'); i >= 0 {
		subject = strings.Trim(subject[i:], `"`)
	}
	c.tell(func(l listener) {
		if l.denied != nil {
			l.denied(subject)
		}
	})
	c.onChange()
}

// worked clears a refusal: the broker lets through again what it refused.
func (c *connection) worked() {
	c.mu.Lock()
	was := c.denied != nil
	c.denied = nil
	if was {
		c.since = time.Now()
	}
	c.mu.Unlock()
	if was {
		c.onChange()
	}
}

// state for the report: nil while it works.
func (c *connection) state() (err error, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.up {
		return fmt.Errorf("the broker cannot be reached: %w", c.err), c.since
	}
	if c.denied != nil {
		return fmt.Errorf("the broker refuses this connector: %w", c.denied), c.since
	}
	return nil, c.since
}

func (c *connection) isUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

// leave a server that is about to end, before it breaks off what would be cut off by that. Everybody else may wait until it does: the server
// lets them go one by one.
func (c *connection) leave() {
	c.mu.Lock()
	wanted := false
	for _, l := range c.listeners {
		wanted = wanted || l.settle != nil
	}
	c.mu.Unlock()
	if wanted {
		c.log.Info("the broker's server is going down, another one is connected to")
		c.reconnect()
	}
}

// reconnect when what is under way has settled.
func (c *connection) reconnect() {
	c.tell(func(l listener) {
		if l.settle != nil {
			l.settle()
		}
	})
	_ = c.nc.ForceReconnect()
}

// renew reconnects at two thirds of the life of the user's JWT, and when its file has changed, until the context ends.
func (c *connection) renew(ctx context.Context) {
	// early is not before when a file that was not renewed in time is presented again.
	var early time.Time
	tick := time.NewTicker(credsPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		used, up := c.used, c.up
		c.mu.Unlock()
		token, err := c.userJWT()
		if err != nil || !up {
			continue
		}
		due, now := renewal(token), time.Now()
		if token == used && (due.IsZero() || now.Before(due) || now.Before(early)) {
			continue
		}
		early = now.Add(time.Hour)
		c.log.Info("reconnecting to the broker with its credentials", "changed", token != used)
		c.reconnect()
	}
}

// renewal is the time at two thirds of a JWT's life, zero when it has no end.
func renewal(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Issued  int64 `json:"iat"`
		Expires int64 `json:"exp"`
	}
	if json.Unmarshal(raw, &claims) != nil || claims.Expires == 0 {
		return time.Time{}
	}
	return time.Unix(claims.Issued+(claims.Expires-claims.Issued)*2/3, 0)
}
