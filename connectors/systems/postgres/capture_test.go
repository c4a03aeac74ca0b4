package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const within = 60 * time.Second

// captured is a database of a test's own with an account that may do what the page of the connector asks for and no more.
type captured struct {
	database string
	secrets  *fakes.Secrets
	capture  map[string]any
	gauges   map[string]func() float64
}

// newCaptured makes the tables by ddl, and the publication of all of them.
func newCaptured(t *testing.T, ddl string) *captured {
	t.Helper()
	fixtures.Lock()
	fixtures.n++
	name := fmt.Sprintf("db%d", fixtures.n)
	fixtures.Unlock()
	server.Exec(t, "postgres", "CREATE ROLE "+name+" LOGIN REPLICATION PASSWORD 'secret'")
	server.Exec(t, "postgres", "CREATE DATABASE "+name)
	server.Exec(t, name, ddl)
	server.Exec(t, name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+name)
	server.Exec(t, name, "CREATE PUBLICATION "+name+" FOR ALL TABLES")
	c := &captured{database: name, secrets: &fakes.Secrets{}, capture: map[string]any{"slot": name}, gauges: map[string]func() float64{}}
	c.secrets.Set(map[string]string{"username": name, "password": "secret"})
	t.Cleanup(func() {
		fakes.Eventually(t, within, "the slot has no reader", func() bool { return !c.active(t) })
		server.Exec(t, name, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+name+"'")
	})
	return c
}

func (c *captured) active(t *testing.T) bool {
	t.Helper()
	return len(server.Query(t, c.database, "SELECT 1 FROM pg_replication_slots WHERE active AND database = '"+c.database+"'")) > 0
}

func (c *captured) open(t *testing.T) *capture {
	t.Helper()
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON}}
	rt := fakes.Runtime(t, config, c.secrets, nil)
	rt.Gauge = func(name, _ string, value func() float64) { c.gauges[name] = value }
	s, err := NewSource(rt, fakes.JSON(t, map[string]any{
		"connection": map[string]any{"host": server.Host, "port": server.Port, "database": c.database, "encryption": "Disabled"},
		"capture":    c.capture,
	}))
	if err != nil {
		t.Fatal(err)
	}
	return s.(*capture)
}

// run the source; stop may be called more than once.
func (c *captured) run(t *testing.T, bus *fakes.Publisher) (state *fakes.Reporter, stop func()) {
	t.Helper()
	s := c.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	state = &fakes.Reporter{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx, bus, state); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return state, stop
}

// body of a change.
type body struct {
	Operation, Table   string
	Key, Before, After map[string]any
	Unchanged          []string
	TooLarge           bool
	Position           struct {
		LSN         string
		Index       int
		Transaction uint32
		Committed   time.Time
	}
}

func bodies(t *testing.T, bus *fakes.Publisher, n int) []body {
	t.Helper()
	fakes.Eventually(t, within, fmt.Sprintf("%d messages are on the bus", n), func() bool { return len(bus.Stored()) >= n })
	out := make([]body, 0, n)
	for _, m := range bus.Stored() {
		if err := sdk.CheckFormat(sdk.FormatJSON, m.Data); err != nil {
			t.Fatalf("%v: %s", err, m.Data)
		}
		var b body
		if err := json.Unmarshal(m.Data, &b); err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	if len(out) != n {
		t.Fatalf("%d messages, want %d: %+v", len(out), n, out)
	}
	return out
}

func streams(t *testing.T, c *captured) {
	t.Helper()
	fakes.Eventually(t, within, "the slot is read", func() bool {
		return len(server.Query(t, c.database, "SELECT 1 FROM pg_replication_slots WHERE active AND slot_name = '"+c.database+"'")) > 0
	})
}

// TestSnapshotThenChanges: every row once, and then every change, while there are writers all the time.
func TestSnapshotThenChanges(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY, n int NOT NULL); INSERT INTO cases SELECT i, 0 FROM generate_series(1, 3000) i")
	bus := &fakes.Publisher{}
	release := bus.Hold() // the snapshot is under way while the table changes
	_, stop := c.run(t, bus)
	fakes.Eventually(t, within, "the snapshot has begun", func() bool { return bus.Calls() > 0 })
	server.Exec(t, c.database, "UPDATE cases SET n = 1 WHERE id <= 100; DELETE FROM cases WHERE id BETWEEN 101 AND 150; INSERT INTO cases SELECT i, 0 FROM generate_series(3001, 3050) i")
	release()
	all := bodies(t, bus, 3200)
	for i, b := range all {
		if (b.Operation == operationRead) != (i < 3000) {
			t.Fatalf("message %d is %s", i, b.Operation)
		}
	}
	rows := map[float64]float64{}
	for _, b := range all {
		id := b.Key["id"].(float64)
		if b.Operation == operationDelete {
			delete(rows, id)
		} else {
			rows[id] = b.After["n"].(float64)
		}
	}
	if len(rows) != 3000 || rows[100] != 1 || rows[200] != 0 || rows[3050] != 0 {
		t.Errorf("%d rows", len(rows))
	}
	stop()
	// What comes next is no snapshot.
	server.Exec(t, c.database, "UPDATE cases SET n = 2 WHERE id = 1")
	c.run(t, bus)
	if b := bodies(t, bus, 3201)[3200]; b.Operation != operationUpdate || b.After["n"] != 2.0 {
		t.Errorf("%+v", b)
	}
	if bus.Repeats() != 0 {
		t.Errorf("%d messages came again", bus.Repeats())
	}
}

// TestSnapshotInterrupted: what is interrupted leaves no slot behind, and the next pod begins again.
func TestSnapshotInterrupted(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY); INSERT INTO cases SELECT generate_series(1, 1000)")
	first := &fakes.Publisher{}
	first.Lose(errors.New("no servers")) // the first batch is stored, and its confirmation is lost
	_, stop := c.run(t, first)
	bodies(t, first, captureBatch)
	stop()
	fakes.Eventually(t, within, "no slot is left", func() bool {
		return len(server.Query(t, c.database, "SELECT 1 FROM pg_replication_slots WHERE database = '"+c.database+"'")) == 0
	})
	second := &fakes.Publisher{}
	c.run(t, second)
	bodies(t, second, 1000)
	streams(t, c)
	server.Exec(t, c.database, "INSERT INTO cases VALUES (1001)")
	bodies(t, second, 1001)
}

// TestChanges: what each operation looks like.
func TestChanges(t *testing.T) {
	c := newCaptured(t, `CREATE TABLE cases (id int PRIMARY KEY, v text); CREATE TABLE whole (id int PRIMARY KEY, v text, large text); ALTER TABLE whole REPLICA IDENTITY FULL;
ALTER TABLE whole ALTER large SET STORAGE EXTERNAL; CREATE TABLE part (id int PRIMARY KEY, v int, large text); ALTER TABLE part ALTER large SET STORAGE EXTERNAL; CREATE TABLE keyless (v int)`)
	bus := &fakes.Publisher{}
	c.run(t, bus)
	streams(t, c)
	server.Exec(t, c.database, `INSERT INTO cases VALUES (1, 'a "quoted" é'), (2, NULL); UPDATE cases SET v = 'b' WHERE id = 1; UPDATE cases SET id = 3 WHERE id = 1; DELETE FROM cases WHERE id = 2; TRUNCATE cases, keyless`)
	large := strings.Repeat("x", 9000)
	server.Exec(t, c.database, "INSERT INTO whole VALUES (1, 'a', repeat('x', 9000)); UPDATE whole SET v = 'b'; DELETE FROM whole; INSERT INTO part VALUES (1, 1, repeat('x', 9000)); UPDATE part SET v = 2; INSERT INTO keyless VALUES (7)")
	all := bodies(t, bus, 13)
	for i := range all {
		all[i].Position.LSN, all[i].Position.Transaction, all[i].Position.Committed = "", 0, time.Time{}
	}
	at := func(i int, b body) body { b.Position.Index = i; return b }
	one, two := map[string]any{"id": 1.0}, map[string]any{"id": 2.0}
	want := []body{
		at(0, body{Operation: "insert", Table: "public.cases", Key: one, After: map[string]any{"id": 1.0, "v": `a "quoted" é`}}),
		at(1, body{Operation: "insert", Table: "public.cases", Key: two, After: map[string]any{"id": 2.0, "v": nil}}),
		at(2, body{Operation: "update", Table: "public.cases", Key: one, After: map[string]any{"id": 1.0, "v": "b"}}),
		at(3, body{Operation: "update", Table: "public.cases", Key: map[string]any{"id": 3.0}, Before: one, After: map[string]any{"id": 3.0, "v": "b"}}),
		at(4, body{Operation: "delete", Table: "public.cases", Key: two, Before: two}),
		at(5, body{Operation: "truncate", Table: "public.cases"}),
		at(6, body{Operation: "truncate", Table: "public.keyless"}),
		at(0, body{Operation: "insert", Table: "public.whole", Key: one, After: map[string]any{"id": 1.0, "v": "a", "large": large}}),
		at(1, body{Operation: "update", Table: "public.whole", Key: one, Before: map[string]any{"id": 1.0, "v": "a", "large": large}, After: map[string]any{"id": 1.0, "v": "b", "large": large}}),
		at(2, body{Operation: "delete", Table: "public.whole", Key: one, Before: map[string]any{"id": 1.0, "v": "b", "large": large}}),
		at(3, body{Operation: "insert", Table: "public.part", Key: one, After: map[string]any{"id": 1.0, "v": 1.0, "large": large}}),
		at(4, body{Operation: "update", Table: "public.part", Key: one, After: map[string]any{"id": 1.0, "v": 2.0}, Unchanged: []string{"large"}}),
		at(5, body{Operation: "insert", Table: "public.keyless", After: map[string]any{"v": 7.0}}),
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestValues: what the types become, in a snapshot and in a change alike.
func TestValues(t *testing.T) {
	const row = `1, 9007199254740993, 1.5, 'NaN', 12.340, true, '{"a": [1]}', '\x00ff', '2026-01-02 03:04:05.6', '2026-01-02 03:04:05+02', 'infinity', '2026-01-02', '{1,2}', '1 day'`
	c := newCaptured(t, `CREATE TABLE every (id int PRIMARY KEY, big bigint, f float8, nan float8, n numeric, b boolean, j jsonb, bin bytea, ts timestamp, tz timestamptz, inf timestamptz, d date, list int[], i interval);
INSERT INTO every VALUES (`+row+`)`)
	bus := &fakes.Publisher{}
	c.run(t, bus)
	streams(t, c)
	server.Exec(t, c.database, "INSERT INTO every VALUES ("+strings.Replace(row, "1", "2", 1)+")")
	bodies(t, bus, 2)
	const want = `"after":{"id":%d,"big":9007199254740993,"f":1.5,"nan":"NaN","n":12.340,"b":true,"j":{"a": [1]},"bin":"AP8=","ts":"2026-01-02T03:04:05.6","tz":"2026-01-02T01:04:05Z","inf":"infinity","d":"2026-01-02","list":"{1,2}","i":"P1D"}`
	for i, m := range bus.Stored() {
		if want := fmt.Sprintf(want, i+1); !strings.Contains(string(m.Data), want) {
			t.Errorf("got  %s\nwant %s", m.Data, want)
		}
	}
}

// TestSchemaChanges: columns come, go and are renamed between and within transactions.
func TestSchemaChanges(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY, v text)")
	bus := &fakes.Publisher{}
	_, stop := c.run(t, bus)
	streams(t, c)
	server.Exec(t, c.database, "INSERT INTO cases VALUES (1, 'a'); ALTER TABLE cases ADD w int DEFAULT 5; INSERT INTO cases VALUES (2, 'b', 6)")
	stop() // the rest is read by a pod that sees the table as it is at the end
	server.Exec(t, c.database, "ALTER TABLE cases RENAME v TO x; INSERT INTO cases VALUES (3, 'c', 7)")
	server.Exec(t, c.database, "ALTER TABLE cases DROP w; ALTER TABLE cases ALTER x TYPE int USING NULL; INSERT INTO cases VALUES (4, 8)")
	c.run(t, bus)
	var got []map[string]any
	for _, b := range bodies(t, bus, 4) {
		got = append(got, b.After)
	}
	want := []map[string]any{{"id": 1.0, "v": "a"}, {"id": 2.0, "v": "b", "w": 6.0}, {"id": 3.0, "x": "c", "w": 7.0}, {"id": 4.0, "x": 8.0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLargeTransaction: it comes in order and in pieces, and what is in memory does not grow with it.
func TestLargeTransaction(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY, v text)")
	bus := &fakes.Publisher{}
	c.run(t, bus)
	streams(t, c)
	release := bus.Hold()
	const rows = 20000
	server.Exec(t, c.database, fmt.Sprintf("INSERT INTO cases SELECT i, repeat('x', 1000) FROM generate_series(0, %d) i", rows-1))
	fakes.Eventually(t, within, "some of it is being published", func() bool { n, _ := bus.Waiting(); return n > 0 })
	release()
	for i, b := range bodies(t, bus, rows) {
		if b.Position.Index != i || b.Key["id"] != float64(i) {
			t.Fatalf("message %d is %+v", i, b.Position)
		}
	}
	if _, most := bus.Waiting(); most > captureBatch {
		t.Errorf("%d messages at once", most)
	}
}

// TestIdleTableLetsGoOfTheLog: others write, and the slot follows though there is nothing to publish.
func TestIdleTableLetsGoOfTheLog(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY)")
	bus := &fakes.Publisher{}
	c.run(t, bus)
	streams(t, c)
	server.Exec(t, "postgres", "CREATE TABLE elsewhere AS SELECT i, repeat('x', 500) v FROM generate_series(1, 40000) i")
	t.Cleanup(func() { server.Exec(t, "postgres", "DROP TABLE elsewhere") })
	end := server.Query(t, "postgres", "SELECT pg_current_wal_lsn()")[0][0]
	fakes.Eventually(t, within, "the slot has followed", func() bool {
		return server.Query(t, "postgres", "SELECT confirmed_flush_lsn >= '"+end+"' FROM pg_replication_slots WHERE slot_name = '"+c.database+"'")[0][0] == "t"
	})
	if n := len(bus.Stored()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestRetainedLogIsReported: while the bus takes nothing the log grows, and the status and the metrics say so.
func TestRetainedLogIsReported(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY, v text)")
	c.capture["maxRetainedMiB"] = 1
	bus := &fakes.Publisher{}
	state, _ := c.run(t, bus)
	streams(t, c)
	bus.Fail(sdk.ErrFull)
	server.Exec(t, c.database, "INSERT INTO cases SELECT i, repeat('x', 1000) FROM generate_series(1, 4000) i")
	fakes.Eventually(t, within, "the status complains", func() bool {
		err, _ := state.State()
		return err != nil && strings.Contains(err.Error(), "MiB of its log for slot "+c.database)
	})
	if v := c.gauges["metip_connector_replication_behind_bytes"](); v < 1<<20 {
		t.Errorf("the metric is %v", v)
	}
	bus.Fail(nil)
	bodies(t, bus, 4000)
	fakes.Eventually(t, within, "the status is good again", func() bool {
		server.Exec(t, "postgres", "CHECKPOINT") // where a slot begins moves with the server's own records only
		err, _ := state.State()
		return err == nil
	})
}

// TestOneReader: a second pod waits, and takes over when the first one goes.
func TestOneReader(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY)")
	bus := &fakes.Publisher{}
	_, stop := c.run(t, bus)
	streams(t, c)
	standby, _ := c.run(t, bus)
	server.Exec(t, c.database, "INSERT INTO cases SELECT generate_series(1, 100)")
	bodies(t, bus, 100)
	if _, reported := standby.State(); reported {
		t.Error("the one that waits reports something")
	}
	stop()
	server.Exec(t, c.database, "INSERT INTO cases SELECT generate_series(101, 200)")
	bodies(t, bus, 200)
	if bus.Repeats() != 0 {
		t.Errorf("%d messages came again", bus.Repeats())
	}
}

// TestOrderOfARow: no two changes of a row are given to the bus at once, for a call that fails may have stored any of them.
func TestOrderOfARow(t *testing.T) {
	b := newBatch()
	for i, m := range []*sdk.Message{{PartitionKey: "a"}, {PartitionKey: "b"}, {}, {}} {
		if b.mustGo(m) {
			t.Fatalf("message %d", i)
		}
		b.add(m)
	}
	if !b.mustGo(&sdk.Message{PartitionKey: "a"}) {
		t.Error("two changes of a row in a batch")
	}
	other := newBatch()
	other.add(&sdk.Message{PartitionKey: "b"})
	if b.join(other) {
		t.Error("two changes of a row in a batch that grew")
	}
}

// TestMissingRights: what an administrator has to do is said.
func TestMissingRights(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY)")
	server.Exec(t, c.database, "DROP PUBLICATION "+c.database)
	says := func(words string) {
		t.Helper()
		state, stop := c.run(t, &fakes.Publisher{})
		defer stop()
		var last error
		defer func() {
			if t.Failed() {
				t.Logf("the last state is %v", last)
			}
		}()
		fakes.Eventually(t, within, words, func() bool {
			last, _ = state.State()
			return last != nil && strings.Contains(last.Error(), words)
		})
	}
	says("or name the tables in capture.tables")
	before := maps.Clone(c.capture)
	c.capture["tables"] = []string{"cases"}
	says(`CREATE PUBLICATION "` + c.database + `" FOR TABLE "public"."cases"`)
	c.capture = before
	server.Exec(t, c.database, "CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION "+c.database+" FOR TABLE other")
	c.capture["tables"] = []string{"cases"}
	says("ADD TABLE \"public\".\"cases\"")
	delete(c.capture, "tables")
	server.Exec(t, "postgres", "ALTER ROLE "+c.database+" NOREPLICATION")
	says("replication")
}

// TestPublicationIsMade: the owner of the tables needs nobody else.
func TestPublicationIsMade(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY); INSERT INTO cases VALUES (1)")
	server.Exec(t, c.database, "DROP PUBLICATION "+c.database+"; ALTER TABLE cases OWNER TO "+c.database+"; GRANT CREATE ON DATABASE "+c.database+" TO "+c.database)
	c.capture["tables"] = []string{"public.cases"}
	bus := &fakes.Publisher{}
	c.run(t, bus)
	bodies(t, bus, 1)
	streams(t, c)
	server.Exec(t, c.database, "DELETE FROM cases")
	bodies(t, bus, 2)
}

// TestTooLarge: a row that the bus cannot carry leaves a message that says so.
func TestTooLarge(t *testing.T) {
	c := newCaptured(t, "CREATE TABLE cases (id int PRIMARY KEY, v text)")
	bus := &fakes.Publisher{}
	c.run(t, bus)
	streams(t, c)
	server.Exec(t, c.database, "INSERT INTO cases VALUES (1, repeat('x', 9000000)); INSERT INTO cases VALUES (2, 'a')")
	all := bodies(t, bus, 2)
	if b := all[0]; !b.TooLarge || b.After != nil || b.Key["id"] != 1.0 || all[1].TooLarge {
		t.Errorf("%+v", all)
	}
}

// TestPublicationChooses: columns, rows and partitions are the same in the snapshot and after it.
func TestPublicationChooses(t *testing.T) {
	c := newCaptured(t, `CREATE TABLE cases (id int PRIMARY KEY, secret text, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);
CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO cases VALUES (1, 'a', 1), (2, 'b', 2); INSERT INTO parts VALUES (1, 1), (11, 2)`)
	server.Exec(t, c.database, "DROP PUBLICATION "+c.database+"; CREATE PUBLICATION "+c.database+" FOR TABLE cases (id, v) WHERE (id > 1), TABLE parts WITH (publish_via_partition_root = true)")
	bus := &fakes.Publisher{}
	c.run(t, bus)
	bodies(t, bus, 3)
	streams(t, c)
	server.Exec(t, c.database, "INSERT INTO cases VALUES (0, 'c', 0), (3, 'd', 3); INSERT INTO parts VALUES (2, 3), (12, 4)")
	var got []string
	for _, b := range bodies(t, bus, 6) {
		got = append(got, fmt.Sprint(b.Operation, b.Table, b.After))
	}
	want := []string{
		"readpublic.casesmap[id:2 v:2]", "readpublic.partsmap[id:1 v:1]", "readpublic.partsmap[id:11 v:2]",
		"insertpublic.casesmap[id:3 v:3]", "insertpublic.partsmap[id:2 v:3]", "insertpublic.partsmap[id:12 v:4]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
