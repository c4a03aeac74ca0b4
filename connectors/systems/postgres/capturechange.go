package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/metip/metip/connectors/sdk"
)

// Operations of a message.
const (
	operationRead     = "read"
	operationInsert   = "insert"
	operationUpdate   = "update"
	operationDelete   = "delete"
	operationTruncate = "truncate"
)

// The kinds of a cell.
const (
	cellNull = iota
	cellText
	// cellUnchanged: a large value that an update did not touch, and that the log does not repeat.
	cellUnchanged
)

// cell of a row; text is what PostgreSQL's output gives.
type cell struct {
	kind int
	text []byte
}

// attribute is a column of a captured table.
type attribute struct {
	name string
	oid  uint32
	key  bool
	// head is `"name":`.
	head []byte
}

// relation is a table as it was when the changes were made.
type relation struct {
	name       string // schema.table
	attributes []attribute
	// keyed: there are columns that name a row.
	keyed bool
	// inserts: there can be no changes but inserts, for nothing names a row.
	inserts bool
}

func (r *relation) add(a attribute) {
	a.head = append(appendString(nil, a.name), ':')
	r.attributes = append(r.attributes, a)
	r.keyed = r.keyed || a.key
}

// relations by the ids that changes name them by.
type relations struct{ known map[uint32]*relation }

// event is one change.
type event struct {
	relation  *relation
	operation string
	before    []cell
	// keyOnly: before has the columns of the key alone.
	keyOnly bool
	after   []cell
	// Where in the log, and in which transaction.
	lsn         string
	index       int
	transaction uint32
	committed   time.Time
}

const primaryKeyQuery = `SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = $1 AND i.indisprimary`

// learn a table, which is told before its first change and after it was altered. Where the whole row is the replica identity, its primary
// key is looked up.
func (r *stream) learn(ctx context.Context, m *pglogrepl.RelationMessage) error {
	t := &relation{name: m.Namespace + "." + m.RelationName}
	var primary map[string]bool
	if m.ReplicaIdentity == 'f' {
		var err error
		if primary, err = r.primaryKey(ctx, m.RelationID); err != nil {
			return err
		}
	}
	for _, c := range m.Columns {
		a := attribute{name: c.Name, oid: c.DataType, key: c.Flags&1 != 0}
		if m.ReplicaIdentity == 'f' {
			a.key = primary[c.Name]
		}
		t.add(a)
	}
	t.inserts = !t.keyed && m.ReplicaIdentity != 'f'
	if old := r.relations.known[m.RelationID]; old != nil && !old.same(t) {
		r.rt.Log.Info("a table was altered", "table", t.name, "columns", len(t.attributes))
	}
	r.relations.known[m.RelationID] = t
	return nil
}

func (r *stream) primaryKey(ctx context.Context, oid uint32) (map[string]bool, error) {
	conn, err := r.connect(ctx, false)
	if err != nil {
		return nil, err
	}
	defer r.disconnect(ctx, conn)
	rows, err := conn.Query(ctx, primaryKeyQuery, oid)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	key := map[string]bool{}
	for _, name := range names {
		key[name] = true
	}
	return key, nil
}

func (r *relation) same(o *relation) bool {
	if r.name != o.name || len(r.attributes) != len(o.attributes) {
		return false
	}
	for i, a := range r.attributes {
		if b := o.attributes[i]; a.name != b.name || a.oid != b.oid || a.key != b.key {
			return false
		}
	}
	return true
}

// events of a message of the plugin; none for what is no change of rows.
func (r *relations) events(message pglogrepl.Message) ([]*event, error) {
	switch m := message.(type) {
	case *pglogrepl.InsertMessage:
		return r.event(m.RelationID, operationInsert, nil, m.Tuple, false)
	case *pglogrepl.UpdateMessage:
		return r.event(m.RelationID, operationUpdate, m.OldTuple, m.NewTuple, m.OldTupleType == pglogrepl.UpdateMessageTupleTypeKey)
	case *pglogrepl.DeleteMessage:
		return r.event(m.RelationID, operationDelete, m.OldTuple, nil, m.OldTupleType == pglogrepl.DeleteMessageTupleTypeKey)
	case *pglogrepl.TruncateMessage:
		var events []*event
		for _, id := range m.RelationIDs {
			e, err := r.event(id, operationTruncate, nil, nil, false)
			if err != nil {
				return nil, err
			}
			events = append(events, e...)
		}
		return events, nil
	}
	return nil, nil
}

func (r *relations) event(id uint32, operation string, before, after *pglogrepl.TupleData, keyOnly bool) ([]*event, error) {
	t := r.known[id]
	if t == nil {
		return nil, fmt.Errorf("a change of table %d, which the server has not described", id)
	}
	e := &event{relation: t, operation: operation, keyOnly: keyOnly}
	var err error
	if e.before, err = cells(t, before); err != nil {
		return nil, err
	}
	if e.after, err = cells(t, after); err != nil {
		return nil, err
	}
	for i := range e.after {
		if e.after[i].kind == cellUnchanged && e.before != nil && e.before[i].kind == cellText {
			e.after[i] = e.before[i] // the whole old row is there
		}
	}
	return []*event{e}, nil
}

func cells(t *relation, tuple *pglogrepl.TupleData) ([]cell, error) {
	if tuple == nil {
		return nil, nil
	}
	if len(tuple.Columns) != len(t.attributes) {
		return nil, fmt.Errorf("a row of table %s has %d columns, and the server has described %d", t.name, len(tuple.Columns), len(t.attributes))
	}
	row := make([]cell, len(tuple.Columns))
	for i, c := range tuple.Columns {
		switch c.DataType {
		case pglogrepl.TupleDataTypeText:
			row[i] = cell{cellText, c.Data}
		case pglogrepl.TupleDataTypeToast:
			row[i].kind = cellUnchanged
		}
	}
	return row, nil
}

// named is the row whose key names the change: the new one, or the old one of what is deleted.
func (e *event) named() []cell {
	if e.after != nil {
		return e.after
	}
	return e.before
}

// message of a change, without its id.
func (r *relation) message(e *event) *sdk.Message {
	e.relation = r
	m := &sdk.Message{
		Endpoint: r.name, Subject: r.name, Time: e.committed, ContentType: "application/json",
		Headers: map[string]string{headerOperation: e.operation, headerTable: r.name, headerPosition: e.lsn},
	}
	m.PartitionKey = r.partitionKey(e)
	m.Data = e.encode()
	return m
}
