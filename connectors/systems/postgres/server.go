package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 5 * time.Second
	defaultPort    = 5432
	// noConnection is what configurations are parsed from: each setting is replaced, so that none is taken from the environment.
	noConnection = "host=localhost port=5432 user=metip password=x dbname=metip sslmode=disable"
)

// connection is the JSON of the API's PostgresConnection.
type connection struct {
	Host       string `json:"host"`
	Port       int    `json:"port"`
	Database   string `json:"database"`
	Encryption string `json:"encryption"`
}

// access is the database as sink and source reach it.
type access struct {
	rt         sdk.Runtime
	connection connection
	tls        *tlsfiles.Client // nil: not encrypted
	endpoint   string           // postgres://host:port/database, for errors
}

func newServer(rt sdk.Runtime, c connection) (*access, error) {
	if c.Port == 0 {
		c.Port = defaultPort
	}
	if c.Host == "" || c.Database == "" || c.Port < 0 || c.Port > 65535 {
		return nil, errors.New("connection: host and database are needed, and a port between 1 and 65535")
	}
	if rt.Config.Auth.Kind != contract.AuthBasic {
		return nil, fmt.Errorf("auth %q: PostgreSQL needs a user name and a password (basic)", rt.Config.Auth.Kind)
	}
	s := &access{rt: rt, connection: c, endpoint: "postgres://" + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) + "/" + c.Database}
	switch c.Encryption {
	case "", "Required":
		s.tls = tlsfiles.NewClient(rt, c.Host)
	case "Disabled":
	default:
		return nil, fmt.Errorf("encryption %q is not one of Required and Disabled", c.Encryption)
	}
	return s, nil
}

// configure a connection; none of its settings comes from the environment.
func (s *access) configure(c *pgx.ConnConfig) {
	c.Host, c.Port, c.Database = s.connection.Host, uint16(s.connection.Port), s.connection.Database
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
}

// authenticate gives a new connection what the mounted files hold now.
func (s *access) authenticate(_ context.Context, c *pgx.ConnConfig) error {
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
