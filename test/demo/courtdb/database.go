package courtdb

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Schema is the court's: the table that config/samples/demo/connectors.yaml writes to, and the connector's ledger of message ids beside it
// (the connector would make it, had its account the right to). Every case needs a date of birth.
const Schema = `
CREATE SCHEMA IF NOT EXISTS court;
CREATE TABLE IF NOT EXISTS court.cases (
  case_id        text PRIMARY KEY,
  arrest_id      text NOT NULL,
  custody_number text NOT NULL,
  surname        text NOT NULL,
  forenames      text NOT NULL,
  date_of_birth  date NOT NULL,
  charges        jsonb NOT NULL,
  court_code     text,
  hearing_at     timestamptz NOT NULL,
  accepted_at    timestamptz NOT NULL,
  received_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  writes         integer NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS court.metip_received (
  durable text, message_id text, received_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (durable, message_id)
);
CREATE OR REPLACE FUNCTION court.count_write() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW.writes := OLD.writes + 1; NEW.received_at := clock_timestamp(); RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER count_write BEFORE UPDATE ON court.cases FOR EACH ROW EXECUTE FUNCTION court.count_write();
`

// Database of a court on a server, with the account that the connector logs in with.
type Database struct {
	Name, Account, Password string

	pool *pgxpool.Pool
}

// Row of the court's table, as far as the demo accounts for it.
type Row struct {
	CaseID   string
	Received time.Time
	// Writes is how often the row was written: 1 when nothing was delivered twice.
	Writes int
}

// Create a database with the court's table and an account that may write to it and to nothing else; or find it. The account gets
// the password, or a random one where that is empty.
func (s *Server) Create(ctx context.Context, name, password string) (*Database, error) {
	if password == "" {
		password = rand.Text()
	}
	d := &Database{Name: name, Account: name + "_bus", Password: password}
	if err := s.exec(ctx, "postgres", createAccount(d)); err != nil {
		return nil, err
	}
	exists, err := s.exists(ctx, name)
	if err != nil {
		return nil, err
	}
	if !exists {
		if err := s.exec(ctx, "postgres", "CREATE DATABASE "+quote(name)); err != nil {
			return nil, err
		}
	}
	if err := s.exec(ctx, name, Schema+grants(d.Account)); err != nil {
		return nil, err
	}
	return d, d.connect(ctx, s)
}

// Drop a database and its account, whoever is connected.
func (s *Server) Drop(ctx context.Context, d *Database) error {
	d.Close()
	if err := s.exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+quote(d.Name)+" WITH (FORCE)"); err != nil {
		return err
	}
	return s.exec(ctx, "postgres", "DROP ROLE IF EXISTS "+quote(d.Account))
}

// SetPassword of the database's account; connections that are open stay open unless they are ended.
func (s *Server) SetPassword(ctx context.Context, d *Database, password string) error {
	return s.exec(ctx, "postgres", fmt.Sprintf("ALTER ROLE %s PASSWORD %s; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
		quote(d.Account), literal(password), literal(d.Account)))
}

// connect opens a pool of the superuser's.
func (d *Database) connect(ctx context.Context, s *Server) error {
	config, err := pgxpool.ParseConfig(s.Address("", "", d.Name))
	if err != nil {
		return err
	}
	config.MaxConns = 4
	s.through(&config.ConnConfig.Config)
	d.pool, err = pgxpool.NewWithConfig(ctx, config)
	return err
}

// Rows of the court's table.
func (d *Database) Rows(ctx context.Context) ([]Row, error) {
	rows, err := d.pool.Query(ctx, "SELECT case_id, received_at, writes FROM court.cases")
	if err != nil {
		return nil, fmt.Errorf("the court's database: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
}

// Record of a case as text, for people to look at.
func (d *Database) Record(ctx context.Context, caseID string) (string, error) {
	var text string
	err := d.pool.QueryRow(ctx, "SELECT jsonb_pretty(to_jsonb(c) - 'writes') FROM court.cases c WHERE case_id = $1", caseID).Scan(&text)
	return text, err
}

// Reset empties the court's table.
func (d *Database) Reset(ctx context.Context) error {
	_, err := d.pool.Exec(ctx, "TRUNCATE court.cases")
	return err
}

// Exec runs any statement as the superuser.
func (d *Database) Exec(ctx context.Context, statement string) error {
	_, err := d.pool.Exec(ctx, statement)
	return err
}

// Close the pool.
func (d *Database) Close() {
	if d.pool != nil {
		d.pool.Close()
	}
}

func createAccount(d *Database) string {
	return fmt.Sprintf(`DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %[2]s) THEN CREATE ROLE %[1]s LOGIN; END IF;
END $do$;
ALTER ROLE %[1]s PASSWORD %[3]s`, quote(d.Account), literal(d.Account), literal(d.Password))
}

// grants are what docs/connectors/postgres.md says that a sink needs.
func grants(account string) string {
	return strings.ReplaceAll(`
GRANT USAGE ON SCHEMA court TO %a;
GRANT SELECT, INSERT, UPDATE ON court.cases TO %a;
GRANT SELECT, INSERT, DELETE ON court.metip_received TO %a;
`, "%a", quote(account))
}

func (s *Server) superuserConn(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(s.Address("", "", database))
	if err != nil {
		return nil, err
	}
	s.through(&config.Config)
	return pgx.ConnectConfig(ctx, config)
}

// through the server's own way of being reached, which no name server knows.
func (s *Server) through(config *pgconn.Config) {
	if s.dial == nil {
		return
	}
	config.DialFunc = s.dial
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
}

func (s *Server) exec(ctx context.Context, database, statement string) error {
	conn, err := s.superuserConn(ctx, database)
	if err != nil {
		return fmt.Errorf("PostgreSQL at %s:%d: %w", s.Host, s.Port, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// the simple protocol takes several statements
	_, err = conn.PgConn().Exec(ctx, statement).ReadAll()
	return err
}

func (s *Server) exists(ctx context.Context, database string) (found bool, err error) {
	conn, err := s.superuserConn(ctx, "postgres")
	if err != nil {
		return false, fmt.Errorf("PostgreSQL at %s:%d: %w", s.Host, s.Port, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return found, conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&found)
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
