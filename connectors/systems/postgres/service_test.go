package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const persons = `CREATE TABLE persons (id bigint PRIMARY KEY, name text, born date, doc jsonb);
INSERT INTO persons VALUES (1, 'Jane', '1980-02-03', '{"a":[1]}'), (2, 'O''Brien', NULL, NULL), (3, 'Jane', '2001-01-01', NULL);
CREATE FUNCTION intrude() RETURNS int LANGUAGE sql AS 'INSERT INTO persons VALUES (99) RETURNING 1';`

// asking is a service with these options on a database of its own.
func asking(t *testing.T, f *fixture, options map[string]any) sdk.Service {
	t.Helper()
	options["connection"] = f.options["connection"]
	s, err := NewService(fakes.Runtime(t, f.config, f.secrets, nil), fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func request(query, body string) *sdk.Request {
	r := &sdk.Request{Method: "GET", Path: "/persons", Query: query}
	if body != "" {
		r.Method, r.ContentType, r.Format, r.Data = "POST", "application/json", sdk.FormatJSON, []byte(body)
	}
	return r
}

func TestQuery(t *testing.T) {
	f := newFixture(t, persons, map[string]any{"table": "persons"})
	by := func(query string, more ...any) map[string]any {
		o := map[string]any{"query": query, "parameters": []string{`headers["query-id"]`}}
		for i := 0; i < len(more); i += 2 {
			o[more[i].(string)] = more[i+1]
		}
		return o
	}
	const one = "SELECT id, name, born, doc FROM persons WHERE id = $1"
	for _, c := range []struct {
		name    string
		options map[string]any
		request *sdk.Request
		want    string
		status  int
		words   string
	}{
		{"a row of a list", by(one), request("id=1", ""), `[{"id":1,"name":"Jane","born":"1980-02-03","doc":{"a": [1]}}]`, 0, ""},
		{"none", by(one), request("id=7", ""), `[]`, 0, ""},
		{"several, in their order", by("SELECT id FROM persons WHERE name = $1 ORDER BY id DESC -- the youngest first"), request("id=Jane", ""), `[{"id":3},{"id":1}]`, 0, ""},
		{"a row alone", by(one, "answer", "Row"), request("id=2", ""), `{"id":2,"name":"O'Brien","born":null,"doc":null}`, 0, ""},
		{"no row alone", by(one, "answer", "Row"), request("id=7", ""), "", 404, "the query has no row"},
		{"two rows alone", by("SELECT id FROM persons WHERE name = $1", "answer", "Row"), request("id=Jane", ""), "", 502, "more rows than the 1"},
		{"too many rows", by("SELECT id FROM persons WHERE id < $1", "maxRows", 1), request("id=9", ""), "", 502, "more rows than the 1"},
		{"what would be SQL is a value", by("SELECT id FROM persons WHERE name = $1"), request("id="+"x%27%20OR%20true%20--", ""), `[]`, 0, ""},
		{"a value that does not fit", by(one), request("id=seven", ""), "", 400, `invalid input syntax for type bigint: "seven"`},
		{"a value that is missing", by(one), request("", ""), "", 400, "parameter 1"},
		{
			"of the body", map[string]any{"query": "SELECT $1::int + $2::int AS sum, $3::jsonb AS doc, $4::text IS NULL AS nothing", "parameters": []string{"data.a", "data.b", "data.doc", "data.none"}},
			request("", `{"a":1,"b":2,"doc":{"x":[true]},"none":null}`), `[{"sum":3,"doc":{"x": [true]},"nothing":true}]`, 0, "",
		},
		{"nothing asked for", map[string]any{"query": "SELECT count(*) AS n FROM persons"}, request("", ""), `[{"n":3}]`, 0, ""},
		{"too large", map[string]any{"query": "SELECT repeat('x', 9000000) AS v"}, request("", ""), "", 502, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := asking(t, f, c.options)
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
			a, err := s.Call(t.Context(), c.request)
			if c.status != 0 {
				var refused *sdk.CallError
				if !errors.As(err, &refused) || refused.Status != c.status || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v, want %d with %q", err, c.status, c.words)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != 200 || string(a.Data) != c.want || a.Format != sdk.FormatJSON || a.ContentType != "application/json" || !json.Valid(a.Data) {
				t.Errorf("%d %s, want %s", a.Status, a.Data, c.want)
			}
		})
	}
}

func TestQueriesThatCannotBeRun(t *testing.T) {
	f := newFixture(t, persons, map[string]any{"table": "persons"})
	for query, words := range map[string]string{
		"SELECT intrude()":                   "the query changes something, and a service only reads",
		"SELECT id FROM nobody":              `relation "nobody" does not exist`,
		"SELECT id FROM persons; SELECT 1":   "syntax error",
		"DELETE FROM persons RETURNING id":   "syntax error",
		"SELECT id FROM persons WHERE id=$1": "the query has 1 parameters, and parameters are 0",
	} {
		s := asking(t, f, map[string]any{"query": query})
		err := s.Check(t.Context())
		if strings.Contains(words, "only reads") {
			_, err = s.Call(t.Context(), request("", ""))
		}
		wantUnavailable(t, err, contract.ReasonSystemError, words)
	}
	if got := rowsOf(t, f, "SELECT count(*)::text FROM persons"); got != "3" {
		t.Errorf("%s persons", got)
	}
	for _, raw := range []string{`{}`, `{"query":" "}`, `{"query":"SELECT 1","answer":"Column"}`, `{"query":"SELECT 1","parameters":["data."]}`, `{"query":"SELECT 1","maxRows":-1}`} {
		var options map[string]any
		if err := json.Unmarshal([]byte(raw), &options); err != nil {
			t.Fatal(err)
		}
		options["connection"] = f.options["connection"]
		if _, err := NewService(fakes.Runtime(t, f.config, f.secrets, nil), fakes.JSON(t, options)); err == nil {
			t.Errorf("%s is taken", raw)
		}
	}
}

// A request that the database refuses costs no connection.
func TestRefusedRequestsKeepTheConnection(t *testing.T) {
	f := newFixture(t, persons, map[string]any{"table": "persons"})
	s := asking(t, f, map[string]any{"query": "SELECT pg_backend_pid() AS pid, $1::int AS id", "parameters": []string{`headers["query-id"]`}})
	pid := ""
	for i := range 6 {
		a, err := s.Call(t.Context(), request("id=1", ""))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && pid != string(a.Data) {
			t.Errorf("another connection: %s instead of %s", a.Data, pid)
		}
		pid = string(a.Data)
		if _, err := s.Call(t.Context(), request("id=seven", "")); err == nil {
			t.Error("seven is taken")
		}
	}
}

// A call that is given up does not go on in the database.
func TestCallsThatAreGivenUpEndInTheDatabase(t *testing.T) {
	f := newFixture(t, persons, map[string]any{"table": "persons"})
	s := asking(t, f, map[string]any{"query": "SELECT pg_sleep(60)"})
	running := func() string {
		return rowsOf(t, f, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = '"+f.database+"' AND state = 'active' AND query LIKE '%pg_sleep(60)%' AND query NOT LIKE '%pg_stat_activity%'")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Call(ctx, request("", ""))
		ended <- err
	}()
	fakes.Eventually(t, within, "the query runs", func() bool { return running() == "1" })
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(within):
		t.Fatal("the call goes on")
	}
	fakes.Eventually(t, within, "the query has ended", func() bool { return running() == "0" })
}
