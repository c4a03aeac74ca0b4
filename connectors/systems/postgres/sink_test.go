package postgres

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/postgrestest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

var server *postgrestest.Server

func TestMain(m *testing.M) {
	var err error
	if server, err = postgrestest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	server.Close()
	os.Exit(code)
}

// fixture is a database of a test's own, with an account that has the grants of the documentation and no more.
type fixture struct {
	database string
	secrets  *fakes.Secrets
	options  map[string]any
	config   *contract.Config
}

var fixtures struct {
	sync.Mutex
	n int
}

const grants = `
GRANT CONNECT ON DATABASE %[1]s TO %[1]s;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO %[1]s;`

func newFixture(t *testing.T, ddl string, write map[string]any) *fixture {
	t.Helper()
	fixtures.Lock()
	fixtures.n++
	name := fmt.Sprintf("db%d", fixtures.n)
	fixtures.Unlock()
	server.Exec(t, "postgres", "CREATE ROLE "+name+" LOGIN PASSWORD 'secret'")
	server.Exec(t, "postgres", "CREATE DATABASE "+name)
	server.Exec(t, name, fmt.Sprintf(grants, name)+ddl)
	server.Exec(t, name, `
CREATE TABLE public.metip_received (durable text, message_id text, received_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (durable, message_id));
GRANT SELECT, INSERT, DELETE ON public.metip_received TO `+name+`;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO `+name+`;
REVOKE UPDATE ON public.metip_received FROM `+name)
	f := &fixture{database: name, secrets: &fakes.Secrets{}, config: &contract.Config{
		Auth: contract.Auth{Kind: contract.AuthBasic},
		TLS:  &contract.TLS{CA: true, CAFrom: "Secret db-ca key ca.crt"},
	}}
	f.options = map[string]any{
		"connection": map[string]any{"host": server.Host, "port": server.Port, "database": name, "encryption": "Required"},
		"write":      write,
	}
	f.secrets.Set(map[string]string{"username": name, "password": "secret", "ca.crt": server.CA.PEM})
	return f
}

func (f *fixture) open(t *testing.T) (sdk.Sink, sdk.Operation) {
	t.Helper()
	s, err := NewSink(fakes.Runtime(t, f.config, f.secrets, nil), fakes.JSON(t, f.options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, op
}

func write(t *testing.T, op sdk.Operation, batch ...*sdk.Delivery) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	results := op.Write(ctx, batch)
	if len(results) != len(batch) {
		t.Fatalf("%d results for %d messages", len(results), len(batch))
	}
	return results
}

func mustWrite(t *testing.T, op sdk.Operation, batch ...*sdk.Delivery) {
	t.Helper()
	for i, err := range write(t, op, batch...) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

func rowsOf(t *testing.T, f *fixture, sql string) string {
	t.Helper()
	var lines []string
	for _, row := range server.Query(t, f.database, sql) {
		lines = append(lines, strings.Join(row, "|"))
	}
	return strings.Join(lines, "\n")
}

func wantUnavailable(t *testing.T, err error, reason, text string) {
	t.Helper()
	var u *sdk.UnavailableError
	if !asUnavailable(err, &u) || u.Reason != reason || !strings.Contains(u.Error(), text) {
		t.Fatalf("got %v (%T), want Unavailable %s with %q", err, err, reason, text)
	}
	if strings.Contains(err.Error(), "secret") && !strings.Contains(err.Error(), "test-secret") {
		t.Fatalf("the error repeats the password: %v", err)
	}
}

const arrests = `CREATE TABLE arrests (id bigint PRIMARY KEY, name text, made timestamptz, doc jsonb, tags text[], amount numeric(10,2), ok boolean, raw bytea, code varchar(4));`

func TestMembersOfTheBody(t *testing.T) {
	f := newFixture(t, arrests, map[string]any{"table": "arrests", "keyColumns": []string{"id"}})
	_, op := f.open(t)
	mustWrite(t, op,
		fakes.Delivery("1", `{"id":1,"name":"O'Brien \"x\" \\ {,} NULL","made":"2026-01-02T03:04:05+01:00","doc":{"a":[1,{"b":null}],"t":"x<y"},"tags":["a","b,\"c\"\\",null],"amount":12.345,"ok":true}`),
		fakes.Delivery("2", `{"id":9007199254740993,"name":null}`),
		fakes.Delivery("3", `{"id":"3","doc":"text","code":"abcd","raw":"bytes"}`),
		fakes.Delivery("4", `{"id":4.0,"name":"5"}`),
	)
	got := rowsOf(t, f, `SELECT id, name, made AT TIME ZONE 'UTC', doc, tags, amount, ok, raw, code FROM arrests ORDER BY id`)
	want := `1|O'Brien "x" \ {,} NULL|2026-01-02 02:04:05|{"a": [1, {"b": null}], "t": "x<y"}|{a,"b,\"c\"\\",NULL}|12.35|t|NULL|NULL
3|NULL|NULL|"text"|NULL|NULL|NULL|\x6279746573|abcd
4|5|NULL|NULL|NULL|NULL|NULL|NULL|NULL
9007199254740993|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMappedColumns(t *testing.T) {
	f := newFixture(t, arrests, map[string]any{
		"table": "public.arrests", "keyColumns": []string{"id"},
		"columns": map[string]string{"id": "data.arrest.id", "made": "time", "name": "type + '/' + id", "doc": "data", "tags": "['x', type]",
			"amount": "double(data.arrest.id) * 1.5", "ok": "data.arrest.id > 6"},
	})
	_, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("m-1", `{"arrest":{"id":7}}`))
	got := rowsOf(t, f, `SELECT id, name, made AT TIME ZONE 'UTC', doc, tags, amount, ok FROM arrests`)
	if want := `7|test.event/m-1|2026-01-02 03:04:05|{"arrest": {"id": 7}}|{x,test.event}|10.50|t`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := write(t, op, fakes.Delivery("m-2", `{"other":1}`))[0]; !sdk.IsPermanent(err) || !strings.Contains(err.Error(), `column`) {
		t.Errorf("a message without the field: %v", err)
	}
}

func TestUpsertInOrderOfTheBatch(t *testing.T) {
	f := newFixture(t, arrests, map[string]any{"table": "arrests", "keyColumns": []string{"id"}})
	_, op := f.open(t)
	mustWrite(t, op,
		fakes.Delivery("a", `{"id":1,"name":"first"}`),
		fakes.Delivery("b", `{"id":2,"name":"other"}`),
		fakes.Delivery("c", `{"id":1,"name":"second","ok":true}`),
		fakes.Delivery("d", `{"id":1,"name":"third"}`),
	)
	if got := rowsOf(t, f, `SELECT id, name, ok FROM arrests ORDER BY id`); got != "1|third|t\n2|other|NULL" {
		t.Errorf("got %s", got)
	}
}

func TestExactlyOnce(t *testing.T) {
	f := newFixture(t, `CREATE TABLE counted (id int PRIMARY KEY, n int);
CREATE TABLE log (at serial, id int, n int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO log(id, n) VALUES (NEW.id, NEW.n); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON counted FOR EACH ROW EXECUTE FUNCTION note();`,
		map[string]any{"table": "counted", "keyColumns": []string{"id"}})
	_, op := f.open(t)
	batch := []*sdk.Delivery{fakes.Delivery("a", `{"id":1,"n":1}`), fakes.Delivery("b", `{"id":1,"n":2}`), fakes.Delivery("b", `{"id":1,"n":2}`)}
	mustWrite(t, op, batch...)
	mustWrite(t, op, batch...)
	mustWrite(t, op, fakes.Delivery("a", `{"id":1,"n":99}`), fakes.Delivery("c", `{"id":1,"n":3}`))
	if got := rowsOf(t, f, `SELECT n FROM log ORDER BY at`); got != "1\n2\n3" {
		t.Errorf("each message must be written once: %q", got)
	}
	other := fakes.Delivery("a", `{"id":1,"n":4}`)
	other.Durable = "test_route_other"
	mustWrite(t, op, other)
	if got := rowsOf(t, f, `SELECT n FROM counted`); got != "4" {
		t.Errorf("another destination's message is another one: n is %s", got)
	}
	long := fakes.Delivery(strings.Repeat("x", 5000), `{"id":2,"n":1}`)
	mustWrite(t, op, long)
	mustWrite(t, op, long)
	if got := rowsOf(t, f, `SELECT count(*) FROM log WHERE id = 2`); got != "1" {
		t.Errorf("a long id: written %s times", got)
	}
}

func TestExactlyOnceAmongPods(t *testing.T) {
	f := newFixture(t, `CREATE TABLE tally (id int PRIMARY KEY); CREATE TABLE log (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON tally FOR EACH ROW EXECUTE FUNCTION note();`,
		map[string]any{"table": "tally", "keyColumns": []string{"id"}})
	const pods, messages = 4, 200
	var wg sync.WaitGroup
	for range pods {
		_, op := f.open(t)
		wg.Go(func() {
			for from := 0; from < messages; from += 20 {
				var batch []*sdk.Delivery
				for i := from; i < from+20; i++ {
					batch = append(batch, fakes.Delivery(fmt.Sprint(i), fmt.Sprintf(`{"id":%d}`, i)))
				}
				for _, err := range op.Write(t.Context(), batch) {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := rowsOf(t, f, `SELECT count(*), count(DISTINCT id) FROM log`); got != "200|200" {
		t.Errorf("got %s", got)
	}
}

func TestOnlyThePoisonIsPermanent(t *testing.T) {
	f := newFixture(t, `CREATE TABLE people (id int PRIMARY KEY, age int CHECK (age > 0), code varchar(4), email text UNIQUE, at date NOT NULL DEFAULT '2026-01-01', whole int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE child (id int PRIMARY KEY);`,
		map[string]any{"table": "people", "keyColumns": []string{"id"}})
	_, op := f.open(t)
	poison := map[int]string{
		3:   `{"id":3,"age":-1}`,
		10:  `{"id":10,"age":"old"}`,
		17:  `{"id":17,"code":"too long"}`,
		18:  `{"id":18,"at":null}`,
		23:  `{"id":23,"email":"7@x"}`,
		24:  `{"id":24,"colour":"red"}`,
		25:  `{"id":null}`,
		26:  `{"age":4}`,
		27:  `[1]`,
		28:  `{"id":28,"whole":3}`,
		29:  `{"id":29,"code":"a\u0000b"}`,
		30:  `{"id":30,"age":{"x":1}}`,
		31:  `{"id":99999999999}`,
		32:  `{"id":32,"at":"2026-13-45"}`,
		100: `not json`,
	}
	var batch []*sdk.Delivery
	for i := range 120 {
		body := fmt.Sprintf(`{"id":%d,"age":%d,"email":"%d@x"}`, i, i+1, i)
		if p, ok := poison[i]; ok {
			body = p
		}
		batch = append(batch, fakes.Delivery(fmt.Sprint(i), body))
	}
	for i, err := range write(t, op, batch...) {
		if _, bad := poison[i]; bad != sdk.IsPermanent(err) || bad != (err != nil) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got := rowsOf(t, f, `SELECT count(*) FROM people`); got != fmt.Sprint(120-len(poison)) {
		t.Errorf("%s rows", got)
	}
	if err := write(t, op, batch[24])[0]; !strings.Contains(err.Error(), `"colour"`) {
		t.Errorf("the column is not named: %v", err)
	}
}

func TestMissingTableColumnAndGrant(t *testing.T) {
	f := newFixture(t, `CREATE TABLE there (id int PRIMARY KEY, other int);`, map[string]any{"table": "absent", "keyColumns": []string{"id"}})
	s, op := f.open(t)
	message := fakes.Delivery("1", `{"id":1}`)
	wantUnavailable(t, write(t, op, message)[0], contract.ReasonSystemError, "absent")
	server.Exec(t, f.database, `CREATE TABLE absent (id int PRIMARY KEY)`)
	wantUnavailable(t, write(t, op, message)[0], contract.ReasonSystemError, "permission denied")
	server.Exec(t, f.database, `GRANT SELECT, INSERT, UPDATE ON absent TO `+f.database)
	mustWrite(t, op, message)
	server.Exec(t, f.database, `DROP TABLE absent`)
	wantUnavailable(t, write(t, op, fakes.Delivery("2", `{"id":2}`))[0], contract.ReasonSystemError, "absent")

	for _, test := range []struct{ write, text string }{
		{`{"table":"there","keyColumns":["nix"]}`, `"nix"`},
		{`{"table":"there","keyColumns":["other"]}`, "no primary key or unique constraint"},
		{`{"table":"there","keyColumns":["id"],"columns":{"id":"data.id","colour":"'red'"}}`, `"colour"`},
		{`{"table":"nowhere.there","keyColumns":["id"]}`, "nowhere"},
	} {
		op, err := s.Operation([]byte(test.write))
		if err != nil {
			t.Fatal(err)
		}
		wantUnavailable(t, write(t, op, fakes.Delivery("3", `{"id":3,"other":3}`))[0], contract.ReasonSystemError, test.text)
	}
}

func TestAlteredTable(t *testing.T) {
	f := newFixture(t, `CREATE TABLE shape (id int PRIMARY KEY, v int);`, map[string]any{"table": "shape", "keyColumns": []string{"id"}})
	_, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("1", `{"id":1,"v":1}`))
	server.Exec(t, f.database, `ALTER TABLE shape ALTER v TYPE text; ALTER TABLE shape ADD w int`)
	o := op.(*operation)
	o.mu.Lock()
	o.loaded = o.loaded.Add(-reloadInterval) // as if some time had passed
	o.mu.Unlock()
	err := write(t, op, fakes.Delivery("2", `{"id":2,"v":"text"}`))[0]
	if err == nil || sdk.IsPermanent(err) {
		t.Fatalf("a value that fits the altered column: %v, want a transient error", err)
	}
	mustWrite(t, op, fakes.Delivery("2", `{"id":2,"v":"text","w":5}`))
}

func TestLedgerIsMade(t *testing.T) {
	f := newFixture(t, `CREATE TABLE t (id int PRIMARY KEY);`, map[string]any{"table": "t", "keyColumns": []string{"id"}})
	server.Exec(t, f.database, `DROP TABLE metip_received`)
	_, op := f.open(t)
	message := fakes.Delivery("1", `{"id":1}`)
	wantUnavailable(t, write(t, op, message)[0], contract.ReasonSystemError, "CREATE TABLE IF NOT EXISTS \"public\".\"metip_received\"")
	server.Exec(t, f.database, `GRANT CREATE ON SCHEMA public TO `+f.database)
	mustWrite(t, op, message)
	if got := rowsOf(t, f, `SELECT durable, message_id FROM metip_received`); got != "test_route_db|source-uid/in/1" {
		t.Errorf("got %s", got)
	}
}

func TestOldIDsAreCleanedOut(t *testing.T) {
	f := newFixture(t, `CREATE TABLE t (id int PRIMARY KEY);`, map[string]any{"table": "t", "keyColumns": []string{"id"}})
	s, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("new", `{"id":1}`))
	server.Exec(t, f.database, fmt.Sprintf(`INSERT INTO metip_received SELECT 'd', n, now() - interval '8 days' FROM generate_series(1, %d) n`, cleanChunk+1000))
	s.(*sink).clean(t.Context())
	if got := rowsOf(t, f, `SELECT count(*) FROM metip_received`); got != "1" {
		t.Errorf("%s ids are left", got)
	}
}

func TestConversionNeverReinterprets(t *testing.T) {
	f := newFixture(t, `CREATE TABLE "Odd ""table" ("sel;ect" text PRIMARY KEY, "drop""" text, c char(5), b bit(3), i interval, u uuid, e inet, j json, f float8);
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO PUBLIC;`, map[string]any{"table": `Odd "table`, "keyColumns": []string{"sel;ect"}})
	_, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("1", `{"sel;ect":"'); DROP TABLE x; --","drop\"":"$1 ${x} \\N","c":"abcde","b":"101","i":"90 seconds","u":"5f0c3c1e-6c0a-4a2b-9f6e-0a1b2c3d4e5f","e":"10.0.0.1","j":{"z":1},"f":1e-7}`))
	if got := rowsOf(t, f, `SELECT * FROM "Odd ""table"`); got != `'); DROP TABLE x; --|$1 ${x} \N|abcde|101|00:01:30|5f0c3c1e-6c0a-4a2b-9f6e-0a1b2c3d4e5f|10.0.0.1|{"z":1}|1e-07` {
		t.Errorf("got %s", got)
	}
	if err := write(t, op, fakes.Delivery("2", `{"sel;ect":"x","c":"abcdef"}`))[0]; !sdk.IsPermanent(err) {
		t.Errorf("a value that is too long must be refused, not cut: %v", err)
	}
}

// newFixtureConn is a connection of the superuser to the fixture's database.
func newFixtureConn(t *testing.T, f *fixture) func(sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL(f.database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func(sql string) {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
