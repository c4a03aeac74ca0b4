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

// table is what the database says of a table, and the names to be used in SQL.
type table struct {
	quoted  string // "schema"."table"
	ledger  string // "schema"."metip_received"
	keys    []string
	columns map[string]*column
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
		c := &column{}
		var typeSchema, typeName, category string
		if err := rows.Scan(&c.plain, &typeSchema, &typeName, &c.name, &category, &c.array, &c.computed); err != nil {
			return nil, err
		}
		c.quoted = pgx.Identifier{c.plain}.Sanitize()
		c.cast = pgx.Identifier{typeSchema, typeName}.Sanitize()
		c.category = category[0]
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
