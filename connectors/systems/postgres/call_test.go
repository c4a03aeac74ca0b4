package postgres

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const calls = `
CREATE TABLE made (n bigserial, id bigint, name text, doc jsonb, made timestamptz);
CREATE FUNCTION add_arrest(id bigint, name text, doc jsonb DEFAULT '{"none":true}', "made At" timestamptz DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF name = 'refuse' THEN RAISE EXCEPTION 'there is no such person'; END IF;
  INSERT INTO made (id, name, doc, made) VALUES (add_arrest.id, add_arrest.name, add_arrest.doc, "made At");
  RETURN id;
END $$;
CREATE FUNCTION nothing(id bigint) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO made (id) VALUES ($1)';
CREATE FUNCTION pair(id bigint, OUT a int, OUT b int) RETURNS SETOF record LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO made (id) VALUES (id); SELECT 1, 2 UNION ALL SELECT 3, 4';
CREATE FUNCTION twice(id bigint) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION twice(id text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION nameless(bigint) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION half(id bigint, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION many(VARIADIC ids bigint[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION constant() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE proceed(id bigint) LANGUAGE sql AS 'SELECT 1';`

func TestCall(t *testing.T) {
	f := newFixture(t, calls, map[string]any{"function": "public.add_arrest"})
	_, op := f.open(t)
	batch := []*sdk.Delivery{
		fakes.Delivery("1", `{"id":7,"name":"O'Brien","doc":{"a":[1]}}`), fakes.Delivery("2", `{"name":"later","id":3}`),
		fakes.Delivery("3", `{"id":1,"name":null,"made At":"2026-01-02T03:04:05Z"}`),
	}
	mustWrite(t, op, batch...)
	mustWrite(t, op, batch...) // each was called once
	want := "7|O'Brien|{\"a\": [1]}|\n3|later|{\"none\": true}|\n1||{\"none\": true}|2026-01-02 03:04:05"
	if got := rowsOf(t, f, "SELECT id::text, coalesce(name, ''), doc::text, coalesce((made AT TIME ZONE 'UTC')::text, '') FROM made ORDER BY n"); got != want {
		t.Errorf("made are\n%s", got)
	}
	for i, err := range write(t, op, fakes.Delivery("4", `{"id":4,"name":"good"}`), fakes.Delivery("5", `{"id":5,"name":"refuse"}`), fakes.Delivery("6", `{"id":6}`),
		fakes.Delivery("7", `{"id":7,"name":"x","colour":"red"}`), fakes.Delivery("8", `{"id":"seven","name":"x"}`), fakes.Delivery("9", `{}`)) {
		word := []string{"", "there is no such person (SQLSTATE P0001)", `argument "name" is missing`, `member "colour" of the body`, "seven", `argument "id" is missing`}[i]
		switch {
		case i == 0 && err != nil:
			t.Error(err)
		case i > 0 && (!sdk.IsPermanent(err) || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), `function "public"."add_arrest"`)):
			t.Errorf("message %d: %v, want %q", i, err, word)
		}
	}
	if got := rowsOf(t, f, "SELECT count(*)::text FROM made"); got != "4" {
		t.Errorf("%s were made", got)
	}
}

func TestCallWithArguments(t *testing.T) {
	for function, want := range map[string]string{"nothing": "5", "pair": "5"} {
		f := newFixture(t, calls, map[string]any{"function": function, "arguments": map[string]string{"id": "data.person.id"}})
		_, op := f.open(t)
		mustWrite(t, op, fakes.Delivery("1", `{"person":{"id":5},"more":1}`))
		if got := rowsOf(t, f, "SELECT id::text FROM made"); got != want {
			t.Errorf("%s: made is %q", function, got)
		}
	}
}

func TestFunctionsThatCannotBeCalled(t *testing.T) {
	f := newFixture(t, calls, map[string]any{"function": "add_arrest"})
	s, _ := f.open(t)
	for function, word := range map[string]string{
		"missing": "there is no function", "twice": "there are 2 of function", "nameless": "arguments without names", "half": "arguments without names", "many": "takes an array",
		"constant": "takes no arguments", "proceed": "is a procedure", "nowhere.add_arrest": `there is no function "nowhere"."add_arrest"`,
	} {
		op, err := s.Operation(fakes.JSON(t, map[string]any{"function": function}))
		if err != nil {
			t.Fatal(err)
		}
		wantUnavailable(t, write(t, op, fakes.Delivery("1", `{"id":1}`))[0], contract.ReasonSystemError, word)
	}
	op, err := s.Operation(fakes.JSON(t, map[string]any{"function": "add_arrest", "arguments": map[string]string{"id": "data.id", "colour": "data.id"}}))
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, write(t, op, fakes.Delivery("1", `{"id":1}`))[0], contract.ReasonSystemError, `has no argument "colour"`)
	server.Exec(t, f.database, "CREATE FUNCTION forbidden(id bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION forbidden FROM PUBLIC")
	if op, err = s.Operation(fakes.JSON(t, map[string]any{"function": "forbidden"})); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, write(t, op, fakes.Delivery("1", `{"id":1}`))[0], contract.ReasonSystemError, "permission denied for function forbidden")
	for _, raw := range []string{`{}`, `{"table":"a","function":"b"}`, `{"function":"b","keyColumns":["a"]}`, `{"function":"b","columns":{"a":"data"}}`, `{"table":"a","arguments":{"a":"data"}}`, `{"function":"b","arguments":{"a":"data."}}`} {
		if _, err := s.Operation(json.RawMessage(raw)); err == nil {
			t.Errorf("%s is taken", raw)
		}
	}
}

// Without key columns each message makes a row, once.
func TestInsert(t *testing.T) {
	f := newFixture(t, "CREATE TABLE log (n bigint GENERATED ALWAYS AS IDENTITY, id bigint, name text UNIQUE);", map[string]any{"table": "log"})
	_, op := f.open(t)
	batch := []*sdk.Delivery{fakes.Delivery("1", `{"id":1}`), fakes.Delivery("2", `{"id":1}`), fakes.Delivery("3", `{"id":null}`), fakes.Delivery("4", `{"id":4,"name":"a"}`)}
	mustWrite(t, op, batch...)
	mustWrite(t, op, batch...)
	if got := rowsOf(t, f, "SELECT coalesce(id::text, '') FROM log ORDER BY n"); got != "1\n1\n\n4" {
		t.Errorf("the log is\n%s", got)
	}
	results := write(t, op, fakes.Delivery("5", `{"id":5,"name":"a"}`), fakes.Delivery("6", `{"id":6}`), fakes.Delivery("7", `{}`))
	if err := results[0]; !sdk.IsPermanent(err) || !strings.Contains(err.Error(), "23505") {
		t.Errorf("a second a: %v", err)
	}
	if err := results[2]; results[1] != nil || !sdk.IsPermanent(err) || !strings.Contains(err.Error(), "no members") {
		t.Errorf("%v, %v", results[1], err)
	}
}
