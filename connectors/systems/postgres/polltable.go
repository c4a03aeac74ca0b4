package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// polled is what the database says of a table, and the queries that are made of it.
type polled struct {
	oid  uint32
	name string // schema.table
	// standby: who writes to the table is not known here.
	standby bool
	// last row, with and without one that it comes after; next rows of a range, which begins after a row or at the beginning.
	lastQuery, lastAfterQuery, nextQuery, nextAfterQuery string
}

const pollTableQuery = `SELECT c.oid, c.relkind::text, pg_catalog.pg_is_in_recovery()
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1::text)`

const pollColumnsQuery = `SELECT a.attname, n.nspname, t.typname, a.attnotnull
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`

// pollIndexesQuery gives the columns of each index, in their order, and whether it says that no two rows have the same.
const pollIndexesQuery = `SELECT i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL, i.indisprimary,
  ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(n, o) JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
    WHERE k.o <= i.indnkeyatts ORDER BY k.o)
FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND i.indisvalid`

const pollSequenceQuery = `SELECT seqcache FROM pg_catalog.pg_sequence WHERE seqrelid = pg_catalog.pg_get_serial_sequence($1, $2)::regclass`

// describe the table, and refuse one whose rows would be left out in silence.
func (s *poll) describe(ctx context.Context, conn *pgx.Conn) (*polled, error) {
	t := &polled{name: s.schema + "." + s.table}
	quoted := quote(s.schema, s.table)
	var kind string
	err := conn.QueryRow(ctx, pollTableQuery, quoted).Scan(&t.oid, &kind, &t.standby)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, s.systemErrorf("table %s does not exist", t.name)
	}
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", t.name, err)
	}
	if !slices.Contains([]string{"r", "p", "v", "m", "f"}, kind) {
		return nil, s.systemErrorf("%s is no table or view", t.name)
	}
	if t.standby && s.settle == 0 {
		return nil, s.systemErrorf("the server is a standby, which does not know who writes to %s: set table.settle to more than the longest transaction takes", t.name)
	}
	casts, err := s.columnTypes(ctx, conn, t, kind)
	if err != nil {
		return nil, err
	}
	if kind == "r" || kind == "p" {
		if err := s.checkIndexes(ctx, conn, t); err != nil {
			return nil, err
		}
		if err := s.checkSequence(ctx, conn, quoted); err != nil {
			return nil, err
		}
	}
	s.queries(t, quoted, casts)
	return t, nil
}

// columnTypes of the columns that rows are in the order of, to be cast to.
func (s *poll) columnTypes(ctx context.Context, conn *pgx.Conn, t *polled, kind string) ([]string, error) {
	rows, err := conn.Query(ctx, pollColumnsQuery, t.oid)
	if err != nil {
		return nil, err
	}
	types, nullable := map[string]string{}, map[string]bool{}
	var name, schema, typeName string
	var notNull bool
	if _, err := pgx.ForEachRow(rows, []any{&name, &schema, &typeName, &notNull}, func() error {
		types[name], nullable[name] = quote(schema, typeName), !notNull
		return nil
	}); err != nil {
		return nil, err
	}
	for _, c := range append(s.order(), s.Columns...) {
		if types[c] == "" {
			return nil, s.systemErrorf("table %s has no column %q", t.name, c)
		}
	}
	var casts []string
	for i, c := range s.order() {
		if i > 0 && nullable[c] && (kind == "r" || kind == "p") {
			return nil, s.systemErrorf("column %q of table %s may be NULL, and cannot tell rows apart: name columns of a primary key in table.key", c, t.name)
		}
		casts = append(casts, types[c])
	}
	return casts, nil
}

// checkIndexes that no two rows have the same place in the order, and that the order is quickly found.
func (s *poll) checkIndexes(ctx context.Context, conn *pgx.Conn, t *polled) error {
	rows, err := conn.Query(ctx, pollIndexesQuery, t.oid)
	if err != nil {
		return err
	}
	var unique, primary bool
	var columns []string
	apart, ordered := false, false
	advice := "give it a primary key, and name its columns in table.key"
	if _, err := pgx.ForEachRow(rows, []any{&unique, &primary, &columns}, func() error {
		apart = apart || unique && !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(s.order(), c) })
		ordered = ordered || len(columns) > 0 && columns[0] == s.Cursor
		if primary {
			advice = "write `key: [" + strings.Join(slices.DeleteFunc(slices.Clone(columns), func(c string) bool { return c == s.Cursor }), ", ") + "]`"
		}
		return nil
	}); err != nil {
		return err
	}
	if !apart {
		return s.systemErrorf("no unique index of table %s says that (%s) tells every row from every other: %s", t.name, strings.Join(s.order(), ", "), advice)
	}
	if !ordered {
		s.rt.Log.Warn("the table has no index that begins with the cursor: each look at it reads all of it", "table", t.name, "index", "("+strings.Join(s.order(), ", ")+")")
	}
	return nil
}

// checkSequence that numbers are given out one by one: where each connection takes some in advance, smaller ones come later.
func (s *poll) checkSequence(ctx context.Context, conn *pgx.Conn, quoted string) error {
	var cache int64
	err := conn.QueryRow(ctx, pollSequenceQuery, quoted, s.Cursor).Scan(&cache)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil // it is of no sequence
	case err != nil:
		return fmt.Errorf("the sequence of column %q: %w", s.Cursor, err)
	case cache > 1:
		return s.systemErrorf("the sequence of column %q gives each connection %d numbers at a time, so that rows do not come in its order: run ALTER SEQUENCE ... CACHE 1, or choose another cursor", s.Cursor, cache)
	}
	return nil
}

func (s *poll) queries(t *polled, quoted string, casts []string) {
	var columns, down, row, bound []string
	for i, c := range s.order() {
		q := "t." + quote(c)
		columns, down = append(columns, q), append(down, q+" DESC")
		row = append(row, "$"+strconv.Itoa(i+1)+"::"+casts[i])
		bound = append(bound, "$"+strconv.Itoa(len(casts)+i+1)+"::"+casts[i])
	}
	order := strings.Join(columns, ", ")
	from := " FROM " + quoted + " AS t WHERE "
	after := "(" + order + ") > (" + strings.Join(row, ", ") + ")"
	first := "SELECT " + order + from
	last := " ORDER BY " + strings.Join(down, ", ") + " LIMIT 1"
	t.lastQuery, t.lastAfterQuery = first+columns[0]+" IS NOT NULL"+last, first+after+last
	what := "t.*"
	if len(s.Columns) > 0 {
		var list []string
		for _, c := range s.Columns {
			list = append(list, "t."+quote(c))
		}
		what = strings.Join(list, ", ")
	}
	limit := " ORDER BY " + order + " LIMIT " + strconv.Itoa(s.BatchSize+1) // one more, to see whether it is told apart
	rows := "SELECT " + order + ", " + what + from
	t.nextQuery = rows + "(" + order + ") <= (" + strings.Join(row, ", ") + ")" + limit
	t.nextAfterQuery = rows + after + " AND (" + order + ") <= (" + strings.Join(bound, ", ") + ")" + limit
}

// writersQuery gives the transactions that have written to a table, or are about to: they hold this lock from before their first row, or number of a
// sequence, to their end. Whoever writes to a part of it, or to what a view shows, counts.
const writersQuery = `WITH RECURSIVE r(oid) AS (
  SELECT $1::oid
  UNION
  SELECT x.oid FROM r, LATERAL (
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = r.oid
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
      AND d.refclassid = 'pg_catalog.pg_class'::regclass WHERE w.ev_class = r.oid
  ) x(oid))
SELECT l.virtualtransaction, coalesce(l.pid, 0) FROM pg_catalog.pg_locks l JOIN r ON l.relation = r.oid
WHERE l.granted AND l.mode = 'RowExclusiveLock' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())`

// writers are the transactions that write to the table now.
func (r *pollRun) writers(ctx context.Context) (map[string]int32, error) {
	if r.table.standby {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	rows, err := r.conn.Query(ctx, writersQuery, r.table.oid)
	if err != nil {
		return nil, err
	}
	out := map[string]int32{}
	var transaction string
	var process int32
	_, err = pgx.ForEachRow(rows, []any{&transaction, &process}, func() error {
		out[transaction] = process
		return nil
	})
	return out, err
}
