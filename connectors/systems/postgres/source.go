package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/metip/metip/connectors/sdk"
)

// sourceOptions are the JSON of the API's PostgresSource.
type sourceOptions struct {
	Connection connection      `json:"connection"`
	Capture    *captureOptions `json:"capture"`
	Table      *pollOptions    `json:"table"`
	Notify     *notifyOptions  `json:"notify"`
}

// NewSource makes a source of the JSON of the API's PostgresSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	var o sourceOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	if f := rt.Config.Source.Format; f != sdk.FormatJSON && (f != sdk.FormatText || o.Notify == nil) {
		return nil, fmt.Errorf("format %s: rows and changes are JSON, and notifications JSON or Text", f)
	}
	server, err := newServer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Capture != nil && o.Table == nil && o.Notify == nil:
		return newCapture(server, *o.Capture)
	case o.Table != nil && o.Capture == nil && o.Notify == nil:
		return newPoll(server, *o.Table)
	case o.Notify != nil && o.Capture == nil && o.Table == nil:
		return newListener(server, *o.Notify)
	default:
		return nil, errors.New("exactly one of capture, table and notify is needed")
	}
}

// connect to the database, for replication or for statements that take as long as they take; what has to be quick has a context.
func (s *access) connect(ctx context.Context, replication bool) (*pgx.Conn, error) {
	return s.open(ctx, func(config *pgx.ConnConfig) {
		if replication {
			config.RuntimeParams["replication"] = "database"
		}
	})
}

// open a connection of a source; adjust its settings before.
func (s *access) open(ctx context.Context, adjust func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(noConnection)
	if err != nil {
		return nil, err
	}
	s.configure(config)
	if err := s.authenticate(ctx, config); err != nil {
		return nil, err
	}
	config.RuntimeParams["bytea_output"], config.RuntimeParams["intervalstyle"] = "hex", "iso_8601"
	config.RuntimeParams["statement_timeout"] = "0"
	// The lock and the slot of a pod whose node has died must come free in less time than the two hours that are the default.
	config.RuntimeParams["tcp_keepalives_idle"], config.RuntimeParams["tcp_keepalives_interval"], config.RuntimeParams["tcp_keepalives_count"] = "20", "10", "3"
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
	}
	adjust(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		conn.PgConn().Frontend().SetMaxBodyLen(maxProtocolMessage)
	}
	return conn, err
}

func (s *access) disconnect(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

// errNotTaken: the bus has not taken what it was given. What that says of the database has been reported, if anything.
var errNotTaken = errors.New("the bus has not taken it")

// sessions of a source, one after the other, until the context ends. Whatever breaks is reported and tried again; what the bus does is the engine's to
// report. failure makes a report of an error.
func (s *access) sessions(ctx context.Context, health *health, session func(ctx context.Context, changed <-chan struct{}) error, failure func(error) error) {
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 200*time.Millisecond, maxBackoff
	for {
		changed := s.rt.Secrets.Changed()
		begun := time.Now()
		err := session(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > steady {
			delay.Reset()
		}
		switch {
		case err == nil:
			continue // the Secret has changed
		case errors.Is(err, errNotTaken):
			s.rt.Log.Info("rows stay where they are for now", "error", err)
		case errors.Is(err, sdk.ErrMoved):
			s.rt.Log.Info("begins at the position that another pod has stored")
		default:
			s.rt.Log.Warn("the session broke off", "error", describe(err))
			health.down(failure(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			delay.Reset()
		case <-time.After(delay.NextBackOff()):
		}
	}
}

// quote names for SQL.
func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }
