package postgres

import (
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// OIDs of the parameters: everything goes as text, and the server casts it.
const (
	oidText      = 25
	oidTextArray = 1009
)

// row is one message on its way into the table.
type row struct {
	at      int // in the batch
	id      string
	durable string
	columns []*column // sorted by name
	values  []text    // of columns
	// signature is the same for rows of the same columns.
	signature string
	key       string // the key's values, unambiguous
	size      int
}

// group is the rows that one statement can take: the same columns, and no key twice.
type group struct {
	durable string
	columns []*column
	rows    []*row
}

// arrange rows in statements: the n-th row of a key goes into the n-th round, so that rows of one key are applied in order.
func arrange(rows []*row) []*group {
	type place struct {
		round   int
		durable string
		columns string
	}
	seen := make(map[string]int, len(rows))
	places := make(map[place]*group)
	var rounds [][]*group
	for _, r := range rows {
		p := place{seen[r.key], r.durable, r.signature}
		seen[r.key]++
		g := places[p]
		if g == nil {
			g = &group{durable: r.durable, columns: r.columns}
			places[p] = g
			if p.round == len(rounds) {
				rounds = append(rounds, nil)
			}
			rounds[p.round] = append(rounds[p.round], g)
		}
		g.rows = append(g.rows, r)
	}
	groups := slices.Concat(rounds...)
	for _, g := range groups {
		// The same order everywhere: transactions that meet then wait for each other instead of locking each other out.
		slices.SortFunc(g.rows, func(a, b *row) int { return strings.Compare(a.key, b.key) })
	}
	return groups
}

// statement records the messages' ids, and upserts or inserts the rows of those that were not recorded yet, or calls the function with them. Parameters
// are the durable, the ids, and an array for each column.
func (t *table) statement(columns []*column) string {
	var names, values, arrays, aliases, updates, arguments []string
	for i, c := range columns {
		alias := "c" + strconv.Itoa(i)
		names = append(names, c.quoted)
		values = append(values, "u."+alias+"::"+c.cast)
		arguments = append(arguments, c.quoted+" => u."+alias+"::"+c.cast)
		arrays = append(arrays, "$"+strconv.Itoa(i+3)+"::text[]")
		aliases = append(aliases, alias)
		if !slices.Contains(t.keys, c.plain) {
			updates = append(updates, c.quoted+" = excluded."+c.quoted)
		}
	}
	keys := make([]string, len(t.keys))
	for i, k := range t.keys {
		keys[i] = pgx.Identifier{k}.Sanitize()
	}
	record := "WITH new AS (INSERT INTO " + t.ledger + " (durable, message_id) SELECT $1, unnest($2::text[])" +
		" ON CONFLICT (durable, message_id) DO NOTHING RETURNING message_id)"
	rows := " FROM unnest($2::text[], " + strings.Join(arrays, ", ") + ") WITH ORDINALITY AS u(mid, " + strings.Join(aliases, ", ") + ", n)" +
		" JOIN new ON new.message_id = u.mid ORDER BY u.n"
	if t.function {
		return record + " SELECT " + t.quoted + "(" + strings.Join(arguments, ", ") + ") FROM (SELECT u.*" + rows + ") u"
	}
	insert := record + " INSERT INTO " + t.quoted + " (" + strings.Join(names, ", ") + ") SELECT " + strings.Join(values, ", ") + rows
	switch {
	case len(t.keys) == 0:
		return insert
	case len(updates) == 0:
		return insert + " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO NOTHING"
	default:
		return insert + " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO UPDATE SET " + strings.Join(updates, ", ")
	}
}

// add the group's statement to a batch.
func (t *table) add(batch *pgconn.Batch, g *group) {
	parameters := make([][]byte, 2+len(g.columns))
	types := make([]uint32, len(parameters))
	parameters[0], types[0] = []byte(g.durable), oidText
	size := 2
	for _, r := range g.rows {
		size += len(r.id) + 3
	}
	ids := append(make([]byte, 0, size), '{')
	for i, r := range g.rows {
		if i > 0 {
			ids = append(ids, ',')
		}
		ids = appendQuoted(ids, r.id)
	}
	parameters[1], types[1] = append(ids, '}'), oidTextArray
	for c := range g.columns {
		size := 2
		for _, r := range g.rows {
			size += len(r.values[c].s) + 5
		}
		array := append(make([]byte, 0, size), '{')
		for i, r := range g.rows {
			if i > 0 {
				array = append(array, ',')
			}
			if r.values[c].null {
				array = append(array, "NULL"...)
			} else {
				array = appendQuoted(array, r.values[c].s)
			}
		}
		parameters[c+2], types[c+2] = append(array, '}'), oidTextArray
	}
	batch.ExecParams(t.statement(g.columns), parameters, types, nil, nil)
}
