package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// parameters of a query, as text.
func parameters(rows ...[]string) (out [][]byte) {
	for _, row := range rows {
		for _, v := range row {
			out = append(out, []byte(v))
		}
	}
	return out
}

// last row that there is, by its order columns; nil when there is none after the one that the bus has.
func (r *pollRun) last(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	query := r.table.lastQuery
	if r.after != nil {
		query = r.table.lastAfterQuery
	}
	result := r.conn.PgConn().ExecParams(ctx, query, parameters(r.after), nil, nil, nil).Read()
	if result.Err != nil || len(result.Rows) == 0 {
		return nil, result.Err
	}
	return r.place(result.Rows[0])
}

// place of a row: its order columns.
func (r *pollRun) place(values [][]byte) ([]string, error) {
	out := make([]string, len(r.order()))
	for i, name := range r.order() {
		if values[i] == nil {
			return nil, r.systemErrorf("column %q is NULL in a row of %s: what table.key names must tell rows apart", name, r.table.name)
		}
		out[i] = string(values[i])
	}
	return out, nil
}

// drain takes in the rows up to the bound.
func (r *pollRun) drain(ctx context.Context) error {
	for {
		more, err := r.batch(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// batch takes in some rows; more says that there may be others.
func (r *pollRun) batch(ctx context.Context) (more bool, err error) {
	inner, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	query, values := r.table.nextQuery, parameters(r.bound.row)
	if r.after != nil {
		query, values = r.table.nextAfterQuery, parameters(r.after, r.bound.row)
	}
	// On an error the session ends, and what is left of the answer goes with the connection.
	reader := r.conn.PgConn().ExecParams(inner, query, values, nil, nil, nil)
	shape := r.shape(reader.FieldDescriptions())
	rows, before, n := newPollBatch(r.BatchSize), r.after, 0
	for reader.NextRow() {
		at, err := r.place(reader.Values())
		if err != nil {
			return false, err
		}
		if slices.Equal(at, before) {
			return false, r.systemErrorf("two rows of %s have the same (%s), which is (%s): name columns in table.key that tell them apart",
				r.table.name, strings.Join(r.order(), ", "), strings.Join(at, ", "))
		}
		if before = at; n == r.BatchSize {
			more = true
			continue // it is only looked at
		}
		n++
		m := shape.message(at, reader.Values())
		if len(m.Data) > contract.MaxMessageSize {
			return false, r.tooLarge(ctx, rows, m)
		}
		if rows.mustGo(m) {
			if err := r.take(ctx, rows); err != nil {
				return false, err
			}
			rows = newPollBatch(r.BatchSize)
		}
		rows.add(m)
		rows.places = append(rows.places, at)
	}
	// The rows that were read are whole, also when the connection has broken since.
	if err := r.take(ctx, rows); err != nil {
		return false, err
	}
	_, err = reader.Close()
	return more, err
}

// tooLarge: no message can be made of a row. Those before it pass.
func (r *pollRun) tooLarge(ctx context.Context, before *pollBatch, m *sdk.Message) error {
	if err := r.take(ctx, before); err != nil {
		return err
	}
	err := r.systemErrorf("row %s makes a message of %d bytes, and %d are allowed: leave large columns out of table.columns", m.ID, len(m.Data), contract.MaxMessageSize)
	r.health.refused(err)
	return fmt.Errorf("%w: %w", errNotTaken, err)
}

// pollBatch is rows that are published at a time.
type pollBatch struct {
	*batch
	places [][]string
}

func newPollBatch(limit int) *pollBatch {
	b := newBatch()
	b.limit = limit
	return &pollBatch{batch: b}
}

// shape of an answer: the types of the columns that rows are in the order of, and all columns of the messages.
type shape struct {
	relation
	order []uint32
}

func (r *pollRun) shape(fields []pgconn.FieldDescription) *shape {
	s := &shape{relation: relation{name: r.table.name}}
	for i, f := range fields {
		if i < len(r.order()) {
			s.order = append(s.order, f.DataTypeOID)
		} else {
			s.add(attribute{name: f.Name, oid: f.DataTypeOID})
		}
	}
	return s
}

// take gives rows to the bus, and stores how far it has come. What is on its way when the context ends may still settle.
func (r *pollRun) take(ctx context.Context, b *pollBatch) error {
	if len(b.messages) == 0 {
		return nil
	}
	err := settle(ctx, func(ctx context.Context) error { return r.publish(ctx, b.messages, b.places) })
	if errors.Is(err, sdk.ErrInvalid) && len(b.messages) > 1 {
		// One of them: those before it pass.
		for i := range b.messages {
			err = settle(ctx, func(ctx context.Context) error { return r.publish(ctx, b.messages[i:i+1], b.places[i:i+1]) })
			if err != nil || ctx.Err() != nil {
				b.messages = b.messages[i:]
				break
			}
		}
	}
	switch {
	case err == nil:
		r.health.refused(nil)
		return ctx.Err()
	case errors.Is(err, sdk.ErrInvalid):
		// Nothing may be left out, so that everything waits until the cause is removed.
		r.health.refused(r.systemErrorf("the bus can take no row from %s on: %w", b.messages[0].ID, err))
		return fmt.Errorf("%w: %w", errNotTaken, err)
	default:
		return err
	}
}

// publish messages, and store the place of the last.
func (r *pollRun) publish(ctx context.Context, messages []*sdk.Message, places [][]string) error {
	if err := r.bus.Publish(ctx, messages...); err != nil {
		if errors.Is(err, sdk.ErrInvalid) {
			return err
		}
		return fmt.Errorf("%w: %w", errNotTaken, err)
	}
	before := r.after
	r.after = places[len(places)-1]
	err := r.store(ctx)
	if err != nil {
		r.after = before
	}
	return err
}

// message of a row; values begin with those of its place.
func (s *shape) message(at []string, values [][]byte) *sdk.Message {
	m := &sdk.Message{
		ID: s.name + "/" + s.key(values, 0), Subject: s.name, ContentType: "application/json", Headers: map[string]string{headerTable: s.name},
		PartitionKey: s.name + "/" + s.key(values, min(1, len(at)-1)), Data: s.object(values[len(at):]),
	}
	if s.order[0] == pgtype.TimestamptzOID {
		if t, err := time.Parse(time.RFC3339Nano, moment(at[0])); err == nil {
			m.Time = t
		}
	}
	return m
}

// key of a row: its order columns from one on, as a JSON array, or the digest of that if it is long.
func (s *shape) key(values [][]byte, from int) string {
	key := []byte{'['}
	for i := from; i < len(s.order); i++ {
		if i > from {
			key = append(key, ',')
		}
		key = appendCell(key, s.order[i], cell{kind: cellText, text: values[i]})
	}
	key = append(key, ']')
	if len(key) > maxKey {
		sum := sha256.Sum256(key)
		return hex.EncodeToString(sum[:])
	}
	return string(key)
}

// object of a row's values.
func (r *relation) object(values [][]byte) []byte {
	size := 2
	for i, v := range values {
		size += len(r.attributes[i].head) + len(v) + 3
	}
	b := append(make([]byte, 0, size), '{')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		c := cell{kind: cellText, text: v}
		if v == nil {
			c.kind = cellNull
		}
		b = append(b, r.attributes[i].head...)
		b = appendCell(b, r.attributes[i].oid, c)
	}
	return append(b, '}')
}
