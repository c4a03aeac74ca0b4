package conformance

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/kafkatest"
	"github.com/metip/metip/connectors/conformance/postgrestest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

var database *postgrestest.Server

func TestMain(m *testing.M) {
	Main()
	enginetest.Main()
	kafkatest.Main()
	var err error
	if database, err = postgrestest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	database.Close()
	stopMosquitto()
	stopRabbitMQ()
	stopSFTP()
	os.Exit(code)
}

var databases atomic.Int64

// message as the systems of the harnesses understand it.
func message(i, size int) *sdk.Delivery {
	return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"v":%q}`, i, strings.Repeat("x", size)))
}

func mustCA(t *testing.T) *certs.Authority {
	t.Helper()
	ca, err := certs.New("an authority that nobody knows")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newPostgres is a database of its own. Its table notes every write, also one that changes nothing.
func newPostgres(t *testing.T) *SinkHarness {
	t.Helper()
	name := fmt.Sprintf("conformance%d", databases.Add(1))
	database.Exec(t, "postgres", "CREATE ROLE "+name+" LOGIN PASSWORD 'first-password'")
	database.Exec(t, "postgres", "CREATE DATABASE "+name+" OWNER "+name)
	database.Exec(t, name, `CREATE TABLE writes (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.writes VALUES (NEW.id); RETURN NULL; END $$;
CREATE TABLE cases (id int PRIMARY KEY, v text NOT NULL);
CREATE TRIGGER note AFTER INSERT OR UPDATE ON cases FOR EACH ROW EXECUTE FUNCTION note();
GRANT USAGE, CREATE ON SCHEMA public TO `+name+`; GRANT SELECT, INSERT, UPDATE ON cases TO `+name)
	return &SinkHarness{
		System: "postgres",
		Options: fakes.JSON(t, map[string]any{
			"connection": map[string]any{"host": database.Host, "port": database.Port, "database": name, "encryption": "Required"},
			"write":      map[string]any{"table": "cases", "keyColumns": []string{"id"}},
		}),
		Config:                contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, CAFrom: "secret db-ca key ca.crt"}},
		Secrets:               map[string]string{"username": name, "password": "first-password", "ca.crt": database.CA.PEM},
		WrongCredentials:      map[string]string{"password": "wrong-password"},
		CheckKnowsCredentials: true,
		WrongCA:               map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:              fmt.Sprintf("postgres://%s:%d/%s", database.Host, database.Port, name),
		Good:                  message,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"v":null}`, i))
		},
		Stop: func(*testing.T) { database.Kill() },
		Start: func(t *testing.T) {
			t.Helper()
			if err := database.Resume(); err != nil {
				t.Fatal(err)
			}
		},
		Effects: func(t *testing.T) map[int]int {
			t.Helper()
			effects := map[int]int{}
			for _, row := range database.Query(t, name, `SELECT id, count(*) FROM writes GROUP BY id`) {
				id, err := strconv.Atoi(row[0])
				if err != nil {
					t.Fatal(err)
				}
				if effects[id], err = strconv.Atoi(row[1]); err != nil {
					t.Fatal(err)
				}
			}
			return effects
		},
		// Whoever holds the table answers nobody.
		Slow: func(t *testing.T) func() {
			t.Helper()
			conn, err := pgx.Connect(t.Context(), database.URL(name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE cases IN ACCESS EXCLUSIVE MODE"); err != nil {
				t.Fatal(err)
			}
			return func() { _ = conn.Close(t.Context()) }
		},
		Remove:  func(t *testing.T) { t.Helper(); database.Exec(t, name, `ALTER TABLE cases RENAME TO hidden`) },
		Restore: func(t *testing.T) { t.Helper(); database.Exec(t, name, `ALTER TABLE hidden RENAME TO cases`) },
		Rotate: func(t *testing.T) map[string]string {
			t.Helper()
			database.Exec(t, "postgres", "ALTER ROLE "+name+" PASSWORD 'second-password'")
			return map[string]string{"password": "second-password"}
		},
	}
}

func TestPostgresSink(t *testing.T) { Sinks(t, newPostgres) }

func newPostgresService(t *testing.T) *ServiceHarness {
	t.Helper()
	h := newPostgres(t)
	_, name, _ := strings.Cut(strings.TrimPrefix(h.Endpoint, "postgres://"), "/")
	return &ServiceHarness{
		System: "postgres",
		Options: fakes.JSON(t, map[string]any{
			"connection": map[string]any{"host": database.Host, "port": database.Port, "database": name},
			"query":      "SELECT $1::int AS id, length($2::text) AS size FROM (SELECT CASE WHEN $3::boolean THEN pg_sleep(60) END) AS s",
			"parameters": []string{"data.id", "data.v", "data.hang"}, "answer": "Row",
		}),
		Config: h.Config, Secrets: h.Secrets, WrongCredentials: h.WrongCredentials, WrongCA: h.WrongCA, Endpoint: h.Endpoint,
		Good: func(i, size int) *sdk.Request { return asksDatabase(i, size, false) },
		Answers: func(i int, a *sdk.Answer) bool {
			return a.Status == 200 && strings.HasPrefix(string(a.Data), fmt.Sprintf(`{"id":%d,"size":`, i)) && a.Format == sdk.FormatJSON
		},
		Hang: func() *sdk.Request { return asksDatabase(0, 0, true) },
		Stop: h.Stop, Start: h.Start, Rotate: h.Rotate,
	}
}

func asksDatabase(i, size int, hang bool) *sdk.Request {
	r := &sdk.Request{Method: "POST", Path: "/sizes"}
	r.ContentType, r.Format, r.Data = "application/json", sdk.FormatJSON, fmt.Appendf(nil, `{"id":%d,"v":%q,"hang":%t}`, i, strings.Repeat("x", size), hang)
	return r
}

func TestPostgresService(t *testing.T) { Services(t, newPostgresService) }
