package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	ledgerName = "metip_received"
	// Ids are kept for retention; what is delivered again later than that is written again. They are cleaned out in chunks, never before
	// the pod has run for cleanInterval, so that one that was away for long does not forget what it is about to be given again.
	retention     = "7 days"
	cleanInterval = time.Hour
	cleanChunk    = 5000
	cleanTimeout  = time.Minute
)

// table is what the database says of a table, or of a function and its arguments, and the names to be used in SQL.
type table struct {
	function bool
	required []string // arguments without a default
	quoted   string   // "schema"."table"
	ledger   string   // "schema"."metip_received"
	keys     []string
	columns  map[string]*column
}

// String is the table or the function, for people.
func (t *table) String() string {
	if t.function {
		return "function " + t.quoted
	}
	return "table " + t.quoted
}

// same tells whether two looks at a table saw the same columns.
func (t *table) same(o *table) bool {
	return maps.EqualFunc(t.columns, o.columns, func(a, b *column) bool { return *a == *b })
}

// column of a table.
type column struct {
	plain    string
	quoted   string
	cast     string // "schema"."type": the column's own length and precision are checked when the row is stored, not cut off by a cast
	name     string // of the type, of its base if it is a domain
	category byte   // pg_type.typcategory
	array    bool
	computed bool // generated, or an identity that cannot be given
}

func (c *column) isJSON() bool { return c.name == "json" || c.name == "jsonb" }

// names splits schema.table; a table alone is in public.
func names(name string) (schema, table string) {
	if schema, table, ok := strings.Cut(name, "."); ok {
		return schema, table
	}
	return "public", name
}

func ledgerDDL(ledger string) string {
	return "CREATE TABLE IF NOT EXISTS " + ledger + " (durable text, message_id text, received_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (durable, message_id))"
}

const columnsQuery = `
SELECT a.attname, tn.nspname, t.typname, b.typname, b.typcategory::text, b.typcategory = 'A', a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped`

// functionsQuery has the functions of a name: what kind they are, how many arguments they take and how many of these, the last ones, have a default.
const functionsQuery = `
SELECT p.oid::text, p.prokind::text, p.provariadic <> 0, p.pronargs, p.pronargdefaults
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = $1 AND p.proname = $2`

// argumentsQuery has the arguments that go in, in their order; one without a name has none.
const argumentsQuery = `
SELECT coalesce(a.name, ''), tn.nspname, t.typname, b.typname, b.typcategory::text, b.typcategory = 'A', false
FROM pg_catalog.pg_proc p
CROSS JOIN LATERAL (SELECT array_agg(x.name ORDER BY x.n) AS names FROM unnest(p.proargnames, p.proargmodes) WITH ORDINALITY x(name, mode, n)
  WHERE x.mode IS NULL OR x.mode IN ('i', 'b')) i
CROSS JOIN LATERAL unnest(p.proargtypes::oid[], i.names) WITH ORDINALITY a(type, name, n)
JOIN pg_catalog.pg_type t ON t.oid = a.type
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE p.oid = $1::text::oid AND a.type IS NOT NULL
ORDER BY a.n`

// loadFunction reads the arguments of a function, and makes sure that there is a place for the ids of messages.
func (s *sink) loadFunction(ctx context.Context, name string, _ []string) (*table, error) {
	schema, plain := names(name)
	t := &table{
		function: true, quoted: pgx.Identifier{schema, plain}.Sanitize(), ledger: pgx.Identifier{schema, ledgerName}.Sanitize(), columns: map[string]*column{},
	}
	rows, err := s.pool.Query(ctx, functionsQuery, schema, plain)
	if err != nil {
		return nil, err
	}
	type found struct {
		OID, Kind           string
		Variadic            bool
		Arguments, Defaults int
	}
	functions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[found])
	switch {
	case err != nil:
		return nil, err
	case len(functions) == 0:
		return nil, s.systemErrorf("there is no %s", t)
	case len(functions) > 1:
		return nil, s.systemErrorf("there are %d of %s: make one under a name of its own", len(functions), t)
	case functions[0].Kind != "f":
		return nil, s.systemErrorf("%s is a procedure, an aggregate or a window function: make a function that calls it", t)
	case functions[0].Variadic:
		return nil, s.systemErrorf("%s takes any number of arguments: make one that takes an array", t)
	case functions[0].Arguments == 0:
		return nil, s.systemErrorf("%s takes no arguments", t)
	}
	if rows, err = s.pool.Query(ctx, argumentsQuery, functions[0].OID); err != nil {
		return nil, err
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		c, err := scanColumn(rows)
		if err != nil {
			return nil, err
		}
		if c.plain == "" {
			return nil, s.systemErrorf("%s has arguments without names: give them names", t)
		}
		t.columns[c.plain] = c
		if n < functions[0].Arguments-functions[0].Defaults {
			t.required = append(t.required, c.plain)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return t, s.ensureLedger(ctx, t.ledger)
}

func scanColumn(rows pgx.Rows) (*column, error) {
	c := &column{}
	var typeSchema, typeName, category string
	if err := rows.Scan(&c.plain, &typeSchema, &typeName, &c.name, &category, &c.array, &c.computed); err != nil {
		return nil, err
	}
	c.quoted = pgx.Identifier{c.plain}.Sanitize()
	c.cast = pgx.Identifier{typeSchema, typeName}.Sanitize()
	c.category = category[0]
	return c, nil
}

// loadTable reads the columns, and makes sure that there is a place for the ids of messages.
func (s *sink) loadTable(ctx context.Context, name string, keys []string) (*table, error) {
	schema, plain := names(name)
	t := &table{
		quoted: pgx.Identifier{schema, plain}.Sanitize(), ledger: pgx.Identifier{schema, ledgerName}.Sanitize(),
		keys: keys, columns: map[string]*column{},
	}
	rows, err := s.pool.Query(ctx, columnsQuery, t.quoted)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c, err := scanColumn(rows)
		if err != nil {
			return nil, err
		}
		t.columns[c.plain] = c
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, k := range keys {
		if t.columns[k] == nil {
			return nil, s.systemErrorf("table %s has no column %q, which keyColumns names", t.quoted, k)
		}
	}
	return t, s.ensureLedger(ctx, t.ledger)
}

func (s *access) systemErrorf(format string, a ...any) error {
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: "+format, append([]any{s.endpoint}, a...)...))
}

// ensureLedger creates the table of ids where it is missing and we may.
func (s *sink) ensureLedger(ctx context.Context, ledger string) error {
	exists := func() (found bool, err error) {
		err = s.pool.QueryRow(ctx, "SELECT to_regclass($1::text) IS NOT NULL", ledger).Scan(&found)
		return found, err
	}
	found, err := exists()
	if err != nil {
		return err
	}
	if !found {
		if _, err = s.pool.Exec(ctx, ledgerDDL(ledger)); err == nil {
			// Rows come in the order of time, so that this index stays tiny.
			_, err = s.pool.Exec(ctx, "CREATE INDEX IF NOT EXISTS metip_received_at ON "+ledger+" USING brin (received_at)")
		}
		if err != nil {
			if found, again := exists(); again != nil || !found {
				return s.ledgerError(ledger, err)
			}
		}
		s.rt.Log.Info("created the table of received message ids", "table", ledger)
	}
	s.ledgers.add(ledger)
	return nil
}

func (s *sink) ledgerError(ledger string, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return s.systemErrorf("the table of message ids is missing and may not be made (%s). Let an administrator run: %s", pg.Message, ledgerDDL(ledger))
	}
	return err
}

// clean forgets ids that are older than retention. What fails is tried again with the next interval.
func (s *sink) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	for _, ledger := range s.ledgers.all() {
		removed, err := s.cleanLedger(ctx, ledger)
		if err != nil {
			s.rt.Log.Warn("cleaning out old message ids failed", "table", ledger, "error", describe(err))
		} else if removed > 0 {
			s.rt.Log.Info("cleaned out old message ids", "table", ledger, "rows", removed)
		}
	}
}

func (s *sink) cleanLedger(ctx context.Context, ledger string) (removed int64, err error) {
	for {
		tag, err := s.pool.Exec(ctx, fmt.Sprintf(
			"DELETE FROM %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %s WHERE received_at < now() - interval '%s' LIMIT %d))",
			ledger, ledger, retention, cleanChunk))
		if err != nil {
			return removed, err
		}
		removed += tag.RowsAffected()
		if tag.RowsAffected() < cleanChunk {
			return removed, nil
		}
	}
}
