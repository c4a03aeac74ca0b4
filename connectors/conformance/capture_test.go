package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// newCapture is a database of its own, with a slot that has been there before the first pod.
func newCapture(t *testing.T) *PullHarness {
	t.Helper()
	name := fmt.Sprintf("capture%d", databases.Add(1))
	database.Exec(t, "postgres", "CREATE ROLE "+name+" LOGIN REPLICATION PASSWORD 'first-password'")
	database.Exec(t, "postgres", "CREATE DATABASE "+name+" OWNER "+name)
	database.Exec(t, name, "CREATE TABLE cases (id int PRIMARY KEY, v text NOT NULL)")
	database.Exec(t, name, "CREATE PUBLICATION "+name+" FOR TABLE cases")
	database.Exec(t, name, "SELECT pg_create_logical_replication_slot('"+name+"', 'pgoutput')")
	idle := func(t *testing.T) {
		fakes.Eventually(t, pullWithin, "the slot has no reader", func() bool {
			return database.Query(t, name, "SELECT active FROM pg_replication_slots WHERE slot_name = '"+name+"'")[0][0] == "f"
		})
	}
	t.Cleanup(func() {
		idle(t)
		database.Exec(t, name, "SELECT pg_drop_replication_slot('"+name+"')")
	})
	return &PullHarness{
		System: "postgres",
		Options: fakes.JSON(t, map[string]any{
			"connection": map[string]any{"host": database.Host, "port": database.Port, "database": name, "encryption": "Required"},
			"capture":    map[string]any{"slot": name, "tables": []string{"cases"}, "snapshot": "Never"},
		}),
		Config:           contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, CAFrom: "secret db-ca key ca.crt"}},
		Secrets:          map[string]string{"username": name, "password": "first-password", "ca.crt": database.CA.PEM},
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:         fmt.Sprintf("postgres://%s:%d/%s", database.Host, database.Port, name),
		Object:           "public.cases",
		// Each row is a transaction of its own.
		Put: func(t *testing.T, from, to, size int) {
			t.Helper()
			database.Exec(t, name, fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d LOOP INSERT INTO cases VALUES (i, repeat('x', %d)); COMMIT; END LOOP; END $$", from, to-1, size))
		},
		Number: func(m *sdk.Message) (int, error) {
			var body struct{ After struct{ ID *int } }
			if err := json.Unmarshal(m.Data, &body); err != nil {
				return 0, err
			}
			if body.After.ID == nil {
				return 0, errors.New("no row with an id")
			}
			return *body.After.ID, nil
		},
		Left: func(t *testing.T) int {
			t.Helper()
			idle(t)
			count := database.Query(t, name, "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('"+name+"', NULL, NULL, 'proto_version', '1', 'publication_names', '"+name+"') WHERE get_byte(data, 0) = ascii('I')")
			n, err := strconv.Atoi(count[0][0])
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
			database.Exec(t, name, fmt.Sprintf("INSERT INTO cases VALUES (%d, 'mapped')", i))
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				want := map[string]string{"pgoperation": "insert", "pgtable": "public.cases", "pglsn": m.Headers["pglsn"]}
				if diff := cmp.Diff(want, m.Headers); diff != "" || m.Headers["pglsn"] == "" || m.Subject != "public.cases" || m.Time.IsZero() {
					t.Errorf("subject %q, time %s, headers (-want +got):\n%s", m.Subject, m.Time, diff)
				}
				if want := fmt.Sprintf("public.cases/[%d]", i); m.PartitionKey != want {
					t.Errorf("partition key %q, want %q", m.PartitionKey, want)
				}
			}
		},
	}
}

func TestPostgresCapture(t *testing.T) { PullSources(t, newCapture) }
