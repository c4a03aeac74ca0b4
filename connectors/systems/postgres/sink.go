package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 5 * time.Second
	checkTimeout   = 5 * time.Second
	// maxConns of one pod: batches are large, so that few connections keep a server busy.
	maxConns    = 4
	defaultPort = 5432
)

// options are the JSON of the API's PostgresSink.
type options struct {
	Connection struct {
		Host       string `json:"host"`
		Port       int    `json:"port"`
		Database   string `json:"database"`
		Encryption string `json:"encryption"`
	} `json:"connection"`
	Write json.RawMessage `json:"write"`
}

// sink writes over one pool of connections.
type sink struct {
	rt       sdk.Runtime
	pool     *pgxpool.Pool
	tls      *tlsfiles.Client // nil: not encrypted
	write    json.RawMessage
	endpoint string // postgres://host:port/database, for errors
	ledgers  ledgers
	stop     context.CancelFunc
	done     chan struct{}
}

// NewSink makes a sink of the JSON of the API's PostgresSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	c := &o.Connection
	if c.Port == 0 {
		c.Port = defaultPort
	}
	if c.Host == "" || c.Database == "" || c.Port < 0 || c.Port > 65535 {
		return nil, errors.New("connection: host and database are needed, and a port between 1 and 65535")
	}
	if rt.Config.Auth.Kind != contract.AuthBasic {
		return nil, fmt.Errorf("auth %q: PostgreSQL needs a user name and a password (basic)", rt.Config.Auth.Kind)
	}
	s := &sink{rt: rt, write: o.Write, done: make(chan struct{})}
	switch c.Encryption {
	case "", "Required":
		s.tls = tlsfiles.NewClient(rt, c.Host)
	case "Disabled":
	default:
		return nil, fmt.Errorf("encryption %q is not one of Required and Disabled", c.Encryption)
	}
	s.endpoint = "postgres://" + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) + "/" + c.Database
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // the sink's own life: Close ends it
	s.stop = cancel
	config, err := s.poolConfig(&o)
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

// poolConfig takes no connection's setting from the environment: each is given here.
func (s *sink) poolConfig(o *options) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig("host=localhost port=5432 user=metip password=x dbname=metip sslmode=disable")
	if err != nil {
		return nil, err
	}
	c := config.ConnConfig
	c.Host, c.Port, c.Database = o.Connection.Host, uint16(o.Connection.Port), o.Connection.Database
	c.Password, c.Fallbacks, c.TLSConfig, c.ValidateConnect, c.AfterConnect = "", nil, nil, nil, nil
	c.ConnectTimeout = connectTimeout
	c.DialFunc = s.rt.Dial
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // Dial resolves, and checks
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		// A statement that is given up is also cancelled in the server, or it would wait for its lock there for ever.
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
	c.RuntimeParams = map[string]string{
		"application_name": "metip/" + s.rt.Config.Connector.Namespace + "/" + s.rt.Config.Connector.Name,
		"client_encoding":  "UTF8",
		"timezone":         "UTC",
		"datestyle":        "ISO, YMD",
	}
	config.MaxConns, config.MinConns = maxConns, 0
	config.MaxConnIdleTime, config.MaxConnLifetime = 5*time.Minute, time.Hour
	config.BeforeConnect = s.authenticate
	return config, nil
}

// authenticate gives each new connection what the mounted files hold now.
func (s *sink) authenticate(_ context.Context, c *pgx.ConnConfig) error {
	user, err := s.rt.Secrets.Get(contract.FileUsername)
	if err != nil {
		return err
	}
	password, err := s.rt.Secrets.Get(contract.FilePassword)
	if err != nil {
		return err
	}
	c.User, c.Password = string(user), string(password)
	if s.tls == nil {
		return nil
	}
	c.TLSConfig, _, err = s.tls.Config()
	return err
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
