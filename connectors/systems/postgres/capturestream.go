package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/metip/metip/connectors/sdk"
)

// statusInterval is how often the server hears of us at least: it breaks off after wal_sender_timeout (60 s).
const statusInterval = 5 * time.Second

// errRotated ends a session because the Secret has changed.
var errRotated = errors.New("the Secret has changed")

// stream reads changes from the slot: one goroutine reads and confirms, one publishes, one watches. The slot is confirmed as far as the
// bus has all of what was committed.
type stream struct {
	*capture
	conn      *pgconn.PgConn
	relations relations
	// batch is what is read and not handed over; queue leads to the publisher.
	batch *batch
	queue chan *batch
	// next is what the publisher has taken from the queue and not begun with.
	next *batch
	// stopped is what the publisher was at when the context ended.
	stopped *batch
	// confirmed is up to where the bus has everything; told is what the server has heard of it, and when.
	confirmed atomic.Uint64
	told      uint64
	toldAt    time.Time
	// begin of the transaction that is being read, nil between two; index counts its changes.
	begin *pglogrepl.BeginMessage
	index int

	mu     sync.Mutex
	woken  bool
	cancel context.CancelFunc
}

// stream until a connection breaks, the Secret changes (nil) or the context ends.
func (s *capture) stream(ctx context.Context, control *pgx.Conn, bus sdk.Publisher, changed <-chan struct{}) error {
	conn, err := s.connect(ctx, true)
	if err != nil {
		return err
	}
	defer s.disconnect(ctx, conn)
	r := &stream{capture: s, conn: conn.PgConn(), batch: newBatch(), queue: make(chan *batch, 1), toldAt: time.Now()}
	r.relations = relations{known: map[uint32]*relation{}}
	err = pglogrepl.StartReplication(ctx, r.conn, s.Slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'", "publication_names '" + s.Publication + "'"},
	})
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "55006":
		return errBusy
	case err != nil:
		return fmt.Errorf("read the replication slot %s: %w", s.Slot, err)
	}
	s.health.up()
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var parts sync.WaitGroup
	parts.Go(func() { r.feed(inner, bus) })
	parts.Go(func() {
		if err := s.watch(inner, control); err != nil && inner.Err() == nil {
			stop(err)
		}
	})
	parts.Go(func() {
		select {
		case <-inner.Done():
		case <-changed:
			stop(errRotated)
		}
	})
	err = r.read(inner)
	if cause := context.Cause(inner); cause != nil {
		err = cause
	}
	if ctx.Err() == nil && !errors.Is(err, errRotated) {
		s.health.down(s.failure(err)) // what is under way may take a while to settle
	}
	stop(err)
	parts.Wait()
	if ctx.Err() != nil {
		r.settle(ctx, bus)
	}
	r.bid(ctx)
	if errors.Is(err, errRotated) {
		return nil
	}
	return err
}

// bid farewell: the server hears what has settled since, so that nothing of it comes again.
func (r *stream) bid(ctx context.Context) {
	if r.conn.IsClosed() {
		return
	}
	_ = r.conn.Conn().SetDeadline(time.Now().Add(closeTimeout))
	if r.confirm(ctx) == nil {
		r.conn.Frontend().Send(&pgproto3.CopyDone{})
		_ = r.conn.Frontend().Flush()
	}
}

// confirm to the server what the bus has.
func (r *stream) confirm(ctx context.Context) error {
	r.told, r.toldAt = r.confirmed.Load(), time.Now()
	return pglogrepl.SendStandbyStatusUpdate(ctx, r.conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: pglogrepl.LSN(r.told)})
}

// read until the connection breaks or the context ends.
func (r *stream) read(ctx context.Context) error {
	for {
		if r.confirmed.Load() != r.told || time.Since(r.toldAt) >= statusInterval {
			if err := r.confirm(ctx); err != nil {
				return err
			}
		}
		r.offer()
		message, err := r.receive(ctx)
		if err != nil {
			return err
		}
		if message == nil {
			continue
		}
		data, ok := message.(*pgproto3.CopyData)
		if !ok {
			if refused, isError := message.(*pgproto3.ErrorResponse); isError {
				return fmt.Errorf("read the replication slot %s: %w", r.Slot, pgconn.ErrorResponseToPgError(refused))
			}
			continue
		}
		if err := r.take(ctx, data.Data); err != nil {
			return err
		}
	}
}

// receive the next message; nil when there is none yet and something else may have to be done.
func (r *stream) receive(ctx context.Context) (pgproto3.BackendMessage, error) {
	waiting, cancel := context.WithDeadline(ctx, r.toldAt.Add(statusInterval))
	defer cancel()
	r.mu.Lock()
	woken := r.woken
	r.woken, r.cancel = false, cancel
	r.mu.Unlock()
	if woken {
		return nil, ctx.Err()
	}
	message, err := r.conn.ReceiveMessage(waiting)
	r.mu.Lock()
	r.cancel = nil
	r.mu.Unlock()
	if err != nil && !r.conn.IsClosed() && waiting.Err() != nil {
		return nil, ctx.Err()
	}
	return message, err
}

// wake the reader.
func (r *stream) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.woken = true
	if r.cancel != nil {
		r.cancel()
	}
}

// take what the server has sent.
func (r *stream) take(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		alive, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return err
		}
		if r.begin == nil {
			// Whatever was committed before has been sent, so that a log that others fill is let go of too.
			r.batch.reach(alive.ServerWALEnd)
		}
		if alive.ReplyRequested {
			return r.confirm(ctx)
		}
	case pglogrepl.XLogDataByteID:
		log, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return err
		}
		message, err := pglogrepl.Parse(log.WALData)
		if err != nil {
			return fmt.Errorf("a change that cannot be read: %w", err)
		}
		return r.change(ctx, message)
	}
	return nil
}

// change is one message of the plugin.
func (r *stream) change(ctx context.Context, message pglogrepl.Message) error {
	switch m := message.(type) {
	case *pglogrepl.BeginMessage:
		r.begin, r.index = m, 0
	case *pglogrepl.CommitMessage:
		r.begin = nil
		r.batch.reach(m.TransactionEndLSN)
	case *pglogrepl.RelationMessage:
		return r.learn(ctx, m)
	default:
		events, err := r.relations.events(message)
		if err != nil {
			return err
		}
		if len(events) > 0 && r.begin == nil {
			return errors.New("a change outside of a transaction")
		}
		for _, e := range events {
			if err := r.put(ctx, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// put a change into the batch, which is handed over before it grows too large.
func (r *stream) put(ctx context.Context, e *event) error {
	e.lsn, e.index, e.transaction, e.committed = r.begin.FinalLSN.String(), r.index, r.begin.Xid, r.begin.CommitTime
	m := e.relation.message(e)
	m.ID = place(r.begin.FinalLSN, r.index)
	r.index++
	if r.batch.mustGo(m) {
		if err := r.handOver(ctx); err != nil {
			return err
		}
	}
	r.batch.add(m)
	return nil
}

// offer the batch to the publisher, if that has room for it. The end of a transaction goes with its last change, so that it is confirmed with it.
func (r *stream) offer() {
	if r.batch.isEmpty() || r.begin != nil {
		return
	}
	select {
	case r.queue <- r.batch:
		r.batch = newBatch()
	default:
	}
}

// handOver the batch, however long that takes; the server is told meanwhile that we are alive.
func (r *stream) handOver(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case r.queue <- r.batch:
			r.batch = newBatch()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := r.confirm(ctx); err != nil {
				return err
			}
		}
	}
}

// settle what was taken in before the pod was told to end, as far as the bus takes it at once.
func (r *stream) settle(ctx context.Context, bus sdk.Publisher) {
	left := []*batch{r.stopped, r.next}
	select {
	case b := <-r.queue:
		left = append(left, b)
	default:
	}
	if r.begin == nil {
		left = append(left, r.batch)
	}
	for _, b := range left {
		if b == nil || b.isEmpty() {
			continue
		}
		if len(b.messages) > 0 && settle(ctx, func(ctx context.Context) error { return bus.Publish(ctx, b.messages...) }) != nil {
			return
		}
		r.reach(b)
	}
}

// reach: the bus has the batch, and all before it.
func (r *stream) reach(b *batch) {
	if uint64(b.reached) > r.confirmed.Load() {
		r.confirmed.Store(uint64(b.reached))
	}
}

// feed the bus with what is handed over, until the context ends.
func (r *stream) feed(ctx context.Context, bus sdk.Publisher) {
	for {
		b := r.next
		if r.next = nil; b == nil {
			select {
			case <-ctx.Done():
				return
			case b = <-r.queue:
			}
		}
		if ctx.Err() != nil || r.publish(ctx, bus, b, r.grow) != nil {
			r.stopped = b
			return
		}
		r.reach(b)
		r.wake()
	}
}

// grow a batch that has to be published again by what has come meanwhile: that is less work once the bus takes it.
func (r *stream) grow(b *batch) {
	if r.next != nil {
		return
	}
	select {
	case r.next = <-r.queue:
		if b.join(r.next) {
			r.next = nil
		}
		r.wake()
	default:
	}
}
