package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/metip/metip/connectors/sdk"
)

const (
	checkTimeout = 5 * time.Second
	// maxConns of one pod: batches are large, so that few connections keep a server busy.
	maxConns = 4
)

// options are the JSON of the API's PostgresSink.
type options struct {
	Connection connection      `json:"connection"`
	Write      json.RawMessage `json:"write"`
}

// sink writes over one pool of connections.
type sink struct {
	*access
	pool    *pgxpool.Pool
	write   json.RawMessage
	ledgers ledgers
	stop    context.CancelFunc
	done    chan struct{}
}

// NewSink makes a sink of the JSON of the API's PostgresSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	server, err := newServer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	s := &sink{access: server, write: o.Write, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // the sink's own life: Close ends it
	s.stop = cancel
	config, err := s.poolConfig()
	if err == nil {
		s.pool, err = pgxpool.NewWithConfig(ctx, config)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connection: %w", err)
	}
	go s.tend(ctx)
	return s, nil
}

func (s *access) poolConfig() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(noConnection)
	if err != nil {
		return nil, err
	}
	s.configure(config.ConnConfig)
	config.MaxConns, config.MinConns = maxConns, 0
	config.MaxConnIdleTime, config.MaxConnLifetime = 5*time.Minute, time.Hour
	config.BeforeConnect = s.authenticate
	return config, nil
}

// tend follows the Secrets, so that connections made with old ones go, and cleans up now and then.
func (s *sink) tend(ctx context.Context) {
	defer close(s.done)
	clean := time.NewTicker(cleanInterval)
	defer clean.Stop()
	for {
		changed := s.rt.Secrets.Changed()
		select {
		case <-ctx.Done():
			return
		case <-changed:
			s.pool.Reset()
		case <-clean.C:
			s.clean(ctx)
		}
	}
}

// Check asks the server for an answer.
func (s *sink) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var one int
	if err := s.pool.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = errors.New("no answer in time")
		}
		return s.unavailable(err)
	}
	return nil
}

// Close ends the connections, once they are no longer used.
func (s *sink) Close() error {
	s.stop()
	<-s.done
	s.pool.Close()
	return nil
}

// ledgers are the tables metip_received that operations use.
type ledgers struct {
	mu   sync.Mutex
	list []string // quoted names
}

func (l *ledgers) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.list {
		if n == name {
			return
		}
	}
	l.list = append(l.list, name)
}

func (l *ledgers) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.list...)
}
