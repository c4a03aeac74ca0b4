package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/metip/metip/connectors/sdk"
)

const (
	outputPlugin = "pgoutput"
	// slowSlot is how long the making of a slot takes before it is worth a report.
	slowSlot = 15 * time.Second
)

// begin makes the slot. With a snapshot, it is made last, as a copy of a temporary slot that the snapshot belongs to: what is interrupted
// leaves nothing behind, and begins again.
func (s *capture) begin(ctx context.Context, control *pgx.Conn, bus sdk.Publisher) error {
	replication, err := s.connect(ctx, true)
	if err != nil {
		return err
	}
	defer s.disconnect(ctx, replication)
	options := pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication, SnapshotAction: "NOEXPORT_SNAPSHOT"}
	name := s.Slot
	if s.Snapshot == snapshotInitial {
		options.Temporary, options.SnapshotAction = true, "EXPORT_SNAPSHOT"
		name += fmt.Sprintf("_s%08x", rand.Uint32())
	}
	waiting := time.AfterFunc(slowSlot, func() {
		s.health.watched(s.systemErrorf("slot %s is not made yet: the server waits for the end of every transaction that was open before (see pg_stat_activity)", s.Slot))
	})
	made, err := pglogrepl.CreateReplicationSlot(ctx, replication.PgConn(), name, outputPlugin, options)
	if !waiting.Stop() {
		s.health.watched(nil)
	}
	if err != nil {
		return fmt.Errorf("make the replication slot: %w", err)
	}
	if s.Snapshot == snapshotInitial {
		if err := s.snapshot(ctx, bus, made); err != nil {
			return fmt.Errorf("the snapshot: %w", err)
		}
		if _, err := control.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1::text::name, $2::text::name, false)", name, s.Slot); err != nil {
			return fmt.Errorf("make the replication slot of the snapshot's: %w", err)
		}
	}
	s.rt.Log.Info("made the replication slot", "slot", s.Slot, "position", made.ConsistentPoint, "snapshot", s.Snapshot)
	return nil
}

// snapshot publishes every row of the published tables, as they were at the slot's consistent point.
func (s *capture) snapshot(ctx context.Context, bus sdk.Publisher, slot pglogrepl.CreateReplicationSlotResult) error {
	conn, err := s.connect(ctx, false)
	if err != nil {
		return err
	}
	defer s.disconnect(ctx, conn)
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SET TRANSACTION SNAPSHOT '"+strings.ReplaceAll(slot.SnapshotName, "'", "''")+"'"); err != nil {
		return err
	}
	tables, err := s.snapshotTables(ctx, conn)
	if err != nil {
		return err
	}
	s.health.up()
	for _, t := range tables {
		begun, n := time.Now(), 0
		if n, err = s.snapshotTable(ctx, conn, bus, t, slot.ConsistentPoint); err != nil {
			return fmt.Errorf("table %s: %w", t.relation.name, err)
		}
		s.rt.Log.Info("the snapshot has a table", "table", t.relation.name, "rows", n, "took", time.Since(begun).Round(time.Millisecond))
	}
	return nil
}

// snapshotTable is a table and the query of its rows.
type snapshotTable struct {
	relation *relation
	query    string
}

const snapshotQuery = `
SELECT p.schemaname, p.tablename, c.relkind::text, coalesce(to_jsonb(p) ->> 'rowfilter', ''), a.attname, t.oid, i.indrelid IS NOT NULL
FROM pg_catalog.pg_publication_tables p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)
WHERE p.pubname = $1 AND coalesce(to_jsonb(p) -> 'attnames' ? a.attname, true)
ORDER BY p.schemaname, p.tablename, a.attnum`

func (s *capture) snapshotTables(ctx context.Context, conn *pgx.Conn) ([]*snapshotTable, error) {
	rows, err := conn.Query(ctx, snapshotQuery, s.Publication)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tables []*snapshotTable
	type source struct{ columns, from string }
	sources := map[*snapshotTable]*source{}
	for rows.Next() {
		var schema, name, kind, filter string
		var c attribute
		if err := rows.Scan(&schema, &name, &kind, &filter, &c.name, &c.oid, &c.key); err != nil {
			return nil, err
		}
		var t *snapshotTable
		if n := len(tables); n > 0 && tables[n-1].relation.name == schema+"."+name {
			t = tables[n-1]
		} else {
			t = &snapshotTable{relation: &relation{name: schema + "." + name}}
			tables = append(tables, t)
			from := " FROM "
			if kind != "p" {
				from += "ONLY " // the children of a table are published by themselves
			}
			from += pgx.Identifier{schema, name}.Sanitize()
			if filter != "" {
				from += " WHERE " + filter
			}
			sources[t] = &source{from: from}
		}
		t.relation.add(c)
		sources[t].columns += ", " + pgx.Identifier{c.name}.Sanitize()
	}
	for _, t := range tables {
		t.query = "SELECT tableoid::text || ctid::text" + sources[t].columns + sources[t].from
	}
	return tables, rows.Err()
}

// snapshotTable reads a table as fast as the bus takes its rows.
func (s *capture) snapshotTable(ctx context.Context, conn *pgx.Conn, bus sdk.Publisher, t *snapshotTable, point string) (rows int, err error) {
	results := conn.PgConn().Exec(ctx, t.query)
	defer func() {
		if e := results.Close(); err == nil {
			err = e
		}
	}()
	b := newBatch()
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
			values := reader.Values()
			m := t.relation.read(values[1:], point)
			m.ID = "snapshot/" + point + "/" + rowName(m.PartitionKey, t.relation, values[0])
			if b.mustGo(m) {
				if err := s.publish(ctx, bus, b, nil); err != nil {
					return rows, err
				}
				b = newBatch()
			}
			b.add(m)
			rows++
		}
	}
	return rows, s.publish(ctx, bus, b, nil)
}

// rowName is the row's primary key or, where the table has none, its place.
func rowName(key string, r *relation, place []byte) string {
	if !r.keyed {
		return string(place)
	}
	key = strings.TrimPrefix(key, r.name+"/")
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// read makes the message of a row that a snapshot has found.
func (r *relation) read(values [][]byte, point string) *sdk.Message {
	row := make([]cell, len(values))
	for i, v := range values {
		row[i] = cell{text: v, kind: cellText}
		if v == nil {
			row[i].kind = cellNull
		}
	}
	return r.message(&event{operation: operationRead, after: row, lsn: point})
}

// place of a change in the log, as ids and bodies name it.
func place(lsn pglogrepl.LSN, index int) string { return lsn.String() + "-" + strconv.Itoa(index) }
