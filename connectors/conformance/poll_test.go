package conformance

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// newTable is a database of its own, with a table that is asked for its rows.
func newTable(t *testing.T) *PullHarness {
	t.Helper()
	name := fmt.Sprintf("table%d", databases.Add(1))
	database.Exec(t, "postgres", "CREATE ROLE "+name+" LOGIN PASSWORD 'first-password'")
	database.Exec(t, "postgres", "CREATE DATABASE "+name)
	database.Exec(t, name, "CREATE TABLE cases (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), id int NOT NULL, v text); CREATE UNIQUE INDEX ON cases (at, number)")
	database.Exec(t, name, "GRANT SELECT ON cases TO "+name)
	position := filepath.Join(t.TempDir(), "position")
	return &PullHarness{
		System: "postgres",
		Options: fakes.JSON(t, map[string]any{
			"connection": map[string]any{"host": database.Host, "port": database.Port, "database": name, "encryption": "Required"},
			"table": map[string]any{
				"name": "cases", "cursor": "at", "key": []string{"number"}, "interval": "200ms", "settle": "0s", "notifyChannel": "cases",
			},
		}),
		Config:           contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, CAFrom: "secret db-ca key ca.crt"}},
		Secrets:          map[string]string{"username": name, "password": "first-password", "ca.crt": database.CA.PEM},
		Position:         position,
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:         fmt.Sprintf("postgres://%s:%d/%s", database.Host, database.Port, name),
		Object:           "public.cases",
		// Each row is a transaction of its own.
		Put: func(t *testing.T, from, to, size int) {
			t.Helper()
			database.Exec(t, name, fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d LOOP INSERT INTO cases (id, v) VALUES (i, repeat('x', %d)); NOTIFY cases; COMMIT; END LOOP; END $$", from, to-1, size))
		},
		Left: func(t *testing.T) int {
			t.Helper()
			raw, err := fakes.ReadPosition(position)
			if err != nil {
				t.Fatal(err)
			}
			at := struct{ After []string }{}
			if raw != nil {
				if err := json.Unmarshal(raw, &at); err != nil {
					t.Fatal(err)
				}
			}
			where := ""
			if at.After != nil {
				where = fmt.Sprintf(" WHERE (at, number) > ('%s', %s)", at.After[0], at.After[1])
			}
			n, err := strconv.Atoi(database.Query(t, name, "SELECT count(*) FROM cases"+where)[0][0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		},
		Window:  200,
		Ordered: true,
		Largest: contract.MaxMessageSize - 8<<10,
		Stop:    func(*testing.T) { database.Kill() },
		Start: func(t *testing.T) {
			t.Helper()
			if err := database.Resume(); err != nil {
				t.Fatal(err)
			}
		},
		Remove:  func(t *testing.T) { t.Helper(); database.Exec(t, name, "ALTER TABLE cases RENAME TO hidden") },
		Restore: func(t *testing.T) { t.Helper(); database.Exec(t, name, "ALTER TABLE hidden RENAME TO cases") },
		Rotate: func(t *testing.T) map[string]string {
			t.Helper()
			database.Exec(t, "postgres", "ALTER ROLE "+name+" PASSWORD 'second-password'")
			return map[string]string{"password": "second-password"}
		},
		Mapped: func(t *testing.T, i int) func(t *testing.T, m *sdk.Message) {
			t.Helper()
			at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
			database.Exec(t, name, fmt.Sprintf("INSERT INTO cases (at, id) VALUES ('%s', %d)", at.Format(time.RFC3339Nano), i))
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				if diff := cmp.Diff(map[string]string{"pgtable": "public.cases"}, m.Headers); diff != "" || m.Subject != "public.cases" || !m.Time.Equal(at) {
					t.Errorf("subject %q, time %s, headers (-want +got):\n%s", m.Subject, m.Time, diff)
				}
				if m.PartitionKey != "public.cases/[1]" || m.ID != `public.cases/["2026-01-02T03:04:05.678901Z",1]` {
					t.Errorf("id %s, partition key %s", m.ID, m.PartitionKey)
				}
			}
		},
	}
}

func TestPostgresTable(t *testing.T) { PullSources(t, newTable) }
