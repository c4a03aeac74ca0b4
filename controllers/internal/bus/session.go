package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
)

// How a session watches its broker.
const (
	callTimeout   = 10 * time.Second
	probeInterval = time.Second
	probeTimeout  = 2 * time.Second
	// lostAfter is how long the broker may be silent before the session counts as lost.
	lostAfter = 4 * time.Second
	// prepareInterval at which what the operator needs for itself is looked at again.
	prepareInterval = 30 * time.Second
)

// session implements Session for one Broker.
type session struct {
	params Params
	log    logr.Logger
	nc     *nats.Conn
	js     jetstream.JetStream
	sys    *nats.Conn
	// copies publishes asynchronously, for Replays.
	copies jetstream.JetStream

	reports *reports
	claims  *claims
	trimmer *trimmer
	lag     *lagging

	// stale asks for a new preparation: at the start, and after each reconnect.
	stale chan struct{}

	mu    sync.Mutex
	state Connection

	// onState is told of every change of state.
	onState func()
	done    sync.WaitGroup
	cancel  context.CancelFunc
}

// Connection says whether a session works.
type Connection struct {
	// Live: the broker answers, and what the operator needs there is there.
	Live bool
	// Since when it is so.
	Since time.Time
	// Err is the last failure; kept while the session is not live.
	Err error
}

// newSession returns at once; the session becomes live when the broker answers.
func newSession(ctx context.Context, p Params, log logr.Logger, onState func(), onReport func(types.NamespacedName)) *session {
	s := &session{
		params: p, log: log, onState: onState, stale: make(chan struct{}, 1),
		reports: newReports(onReport), lag: newLagging(), state: Connection{Since: time.Now()},
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.done.Go(func() {
		if err := s.open(); err != nil {
			s.setErr(err)
			s.onState()
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.done.Go(func() { s.trimmer.run(ctx) })
		s.done.Go(func() { s.reports.watchSilence(ctx) })
		if s.sys != nil {
			s.done.Go(func() { s.claims.watchServers(ctx) })
		}
		s.run(ctx)
	})
	return s
}

// open begins to connect. It fails only for what no waiting mends.
func (s *session) open() error {
	var err error
	if s.nc, err = s.connect(s.params.Bus, "BUS"); err != nil {
		return err
	}
	if s.js, err = jetstream.New(s.nc, jetstream.WithDefaultTimeout(callTimeout)); err != nil {
		return err
	}
	if s.copies, err = jetstream.New(s.nc, jetstream.WithPublishAsyncTimeout(copyTimeout)); err != nil {
		return err
	}
	if s.params.Sys != nil {
		if s.sys, err = s.connect(*s.params.Sys, "SYS"); err != nil {
			return err
		}
	}
	s.claims = newClaims(s.params, s.sys)
	s.trimmer = newTrimmer(s.nc, s.js, s.params.TrimInterval, s.log)
	s.trimmer.heldUp, s.trimmer.scan = s.heldUp, s.scan
	s.markStale()
	return nil
}

// close ends the session and waits for its goroutines.
func (s *session) close() {
	s.cancel()
	s.done.Wait()
	for _, nc := range []*nats.Conn{s.nc, s.sys} {
		if nc != nil {
			nc.Close()
		}
	}
}

func (s *session) connect(login Login, account string) (*nats.Conn, error) {
	failed := func(_ *nats.Conn, err error) {
		if err != nil {
			s.setErr(describe(account, err))
		}
	}
	options := []nats.Option{
		nats.Name("metip-operator"),
		nats.UserJWT(login.jwt, login.sign),
		nats.Timeout(5 * time.Second),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ReconnectErrHandler(failed), nats.DisconnectErrHandler(failed),
		nats.ConnectHandler(func(*nats.Conn) { s.markStale() }),
		nats.ReconnectHandler(func(*nats.Conn) { s.markStale() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { failed(nil, err) }),
	}
	if s.params.Client.CA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(s.params.Client.CA)) {
			return nil, fmt.Errorf("%w: the CA bundle holds no certificate", ErrCredentials)
		}
		options = append(options, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
	}
	return nats.Connect(strings.Join(s.params.Client.URLs, ","), options...)
}

// describe an error of a connection in words that stay the same while the cause does: without our own ports and the name server's address.
func describe(account string, err error) error {
	var lookup *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("the credentials of account %s: %w", account, err)
	case errors.As(err, &lookup):
		if lookup.IsTimeout {
			return fmt.Errorf("looking up %s: no name server answers", lookup.Name)
		}
		return fmt.Errorf("looking up %s: no such host", lookup.Name)
	case errors.As(err, &op):
		return fmt.Errorf("%s %v: %w", op.Op, op.Addr, op.Err)
	}
	return err
}

func (s *session) markStale() {
	select {
	case s.stale <- struct{}{}:
	default:
	}
}

// run keeps the session's state until ctx ends.
func (s *session) run(ctx context.Context) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	var answered, prepared time.Time
	missed := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.stale:
			prepared, missed = time.Time{}, true
		case <-ticker.C:
		}
		err := s.probe(ctx)
		if err == nil && time.Since(prepared) > prepareInterval {
			if err = s.prepare(ctx, missed); err == nil {
				prepared, missed = time.Now(), false
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			answered = time.Now()
			s.setLive(true, nil)
		case time.Since(answered) > lostAfter:
			s.setLive(false, err)
		}
	}
}

// probe asks the leader of JetStream, so that a cluster without quorum does not count as an answer.
func (s *session) probe(ctx context.Context) error {
	if !s.nc.IsConnected() {
		return nats.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := s.js.AccountInfo(ctx)
	return err
}

// prepare makes what the operator needs for itself and, where it may have missed some, reads the reports.
func (s *session) prepare(ctx context.Context, missed bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.ensureStatusStream(ctx); err != nil {
		return fmt.Errorf("stream %s: %w", contract.StatusStream, err)
	}
	if missed {
		if err := s.reports.load(ctx, s.nc, s.js); err != nil {
			return fmt.Errorf("reading reports: %w", err)
		}
	}
	if err := s.claims.push(ctx); err != nil {
		return fmt.Errorf("updating claims: %w", err)
	}
	return nil
}

func (s *session) setErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Err = err
}

func (s *session) setLive(live bool, err error) {
	s.mu.Lock()
	changed := s.state.Live != live
	if changed {
		s.state.Live, s.state.Since = live, time.Now()
	}
	switch {
	case live:
		s.state.Err = nil
	// What the connection says is more telling than what a request on it says.
	case s.state.Err == nil || !errors.Is(err, nats.ErrDisconnected):
		s.state.Err = err
	}
	s.mu.Unlock()
	if changed {
		s.onState()
	}
}

func (s *session) connection() Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Client implements Session.
func (s *session) Client() contract.Broker { return s.params.Client }

// IssueUser implements Session.
func (s *session) IssueUser(name string, permissions contract.Permissions, lifetime time.Duration) (User, error) {
	if lifetime > MaxUserLifetime {
		return User{}, fmt.Errorf("user %s: a lifetime of %s exceeds %s", name, lifetime, MaxUserLifetime)
	}
	return issueUser(s.params.Edge, name, edgePermissions(permissions), lifetime)
}

// Revoke implements Session.
func (s *session) Revoke(ctx context.Context, publicKey string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return explain(s.claims.revoke(ctx, publicKey))
}

// Reports implements Session.
func (s *session) Reports(namespace, connector string) []PodReport {
	return s.reports.of(types.NamespacedName{Namespace: namespace, Name: connector})
}

// explain wraps the errors of types.go around those of the client library.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		return err
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.As(err, &api) && outOfStorage(api):
		return fmt.Errorf("%w: %w", ErrNoStorage, err)
	case errors.As(err, &api) && api.Code == 503, unanswered(err):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}

func unanswered(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionClosed,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, nats.ErrNoServers, nats.ErrStaleConnection,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Error codes of the JetStream API that the client library does not name.
const (
	codeNoPeers        = 10005
	codeInsufficient   = 10023
	codeMemoryExceeded = 10028
	codeDiskExceeded   = 10047
	codeStoreFailed    = 10077
)

func outOfStorage(err *jetstream.APIError) bool {
	switch err.ErrorCode {
	case codeInsufficient, codeMemoryExceeded, codeDiskExceeded:
		return true
	case codeNoPeers:
		return strings.Contains(err.Description, "insufficient storage")
	}
	return false
}
