package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	defaultInterval = 10 * time.Second
	defaultSettle   = 5 * time.Second
	defaultRows     = 200
	maxRows         = 1000
	// pollTimeout of one statement, which the server keeps; answerTimeout is when it is given up that the server keeps it.
	pollTimeout   = 60 * time.Second
	answerTimeout = 90 * time.Second
	// writersPause between two looks whether transactions that write to the table have ended, and writersGrace until that is worth a report.
	minWritersPause = 20 * time.Millisecond
	maxWritersPause = 500 * time.Millisecond
	writersGrace    = time.Minute
)

// Where a source begins that has no position.
const (
	startBeginning = "Beginning"
	startNow       = "Now"
)

// pollOptions are the JSON of the API's PostgresPoll.
type pollOptions struct {
	Name          string             `json:"name"`
	Cursor        string             `json:"cursor"`
	Key           []string           `json:"key"`
	Columns       []string           `json:"columns"`
	Start         string             `json:"start"`
	Interval      *contract.Duration `json:"interval"`
	Settle        *contract.Duration `json:"settle"`
	BatchSize     int                `json:"batchSize"`
	NotifyChannel string             `json:"notifyChannel"`
}

// poll is the source of a table's rows.
type poll struct {
	*access
	pollOptions
	schema, table    string
	interval, settle time.Duration
	health           health
}

func newPoll(server *access, o pollOptions) (sdk.Source, error) {
	s := &poll{access: server, pollOptions: o, interval: defaultInterval, settle: defaultSettle}
	s.schema, s.table = names(o.Name)
	switch {
	case !server.rt.Config.Source.Position:
		return nil, errors.New("table: the configuration says that the source keeps no position")
	case s.schema == "" || s.table == "" || o.Cursor == "":
		return nil, errors.New("table: name and cursor are needed")
	case s.BatchSize == 0:
		s.BatchSize = defaultRows
	case s.BatchSize < 0 || s.BatchSize > maxRows:
		return nil, fmt.Errorf("table: batchSize must be between 1 and %d", maxRows)
	}
	switch s.Start {
	case "":
		s.Start = startBeginning
	case startBeginning, startNow:
	default:
		return nil, fmt.Errorf("table: start %q is neither %s nor %s", s.Start, startBeginning, startNow)
	}
	if o.Interval != nil {
		s.interval = time.Duration(*o.Interval)
	}
	if o.Settle != nil {
		s.settle = time.Duration(*o.Settle)
	}
	if s.interval < time.Millisecond || s.settle < 0 {
		return nil, errors.New("table: interval must be at least 1ms, and settle not less than 0s")
	}
	return s, nil
}

// Run takes in rows until the context ends.
func (s *poll) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	s.health.state = state
	s.sessions(ctx, &s.health, func(ctx context.Context, changed <-chan struct{}) error { return s.session(ctx, bus, changed) }, s.failure)
	return nil
}

// failure as it is reported.
func (s *poll) failure(err error) error {
	var large *pgproto3.ExceededMaxBodyLenErr
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &large):
		return s.systemErrorf("a row of %s is larger than %d MiB, which no pod can hold: leave large columns out of table.columns", s.Name, maxProtocolMessage>>20)
	case errors.As(err, &pg) && pg.Code == "57014":
		return s.systemErrorf("table %s does not answer within %s: it needs an index on (%s)", s.Name, pollTimeout, strings.Join(s.order(), ", "))
	}
	return s.unavailable(err)
}

// order is the columns that rows are in the order of.
func (s *poll) order() []string { return append([]string{s.Cursor}, s.Key...) }

// session of one connection, until it breaks or the context ends; nil when other credentials are to be used.
func (s *poll) session(ctx context.Context, bus sdk.Publisher, changed <-chan struct{}) error {
	r := &pollRun{poll: s, bus: bus, changed: changed}
	conn, err := s.open(ctx, func(config *pgx.ConnConfig) {
		config.RuntimeParams["statement_timeout"] = fmt.Sprint(pollTimeout.Milliseconds())
		config.RuntimeParams["default_transaction_read_only"] = "on"
		config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { r.woken = true }
	})
	if err != nil {
		return err
	}
	defer s.disconnect(ctx, conn)
	r.conn = conn
	setup, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if r.table, err = s.describe(setup, conn); err != nil {
		return err
	}
	if s.NotifyChannel != "" {
		if _, err := conn.Exec(setup, "LISTEN "+quote(s.NotifyChannel)); err != nil {
			return fmt.Errorf("listen to %s: %w", s.NotifyChannel, err)
		}
	}
	if err := r.resume(setup); err != nil {
		return err
	}
	s.health.up()
	return r.run(ctx)
}

// pollRun is one session.
type pollRun struct {
	*poll
	bus     sdk.Publisher
	changed <-chan struct{}
	conn    *pgx.Conn
	table   *polled
	// after is the last row that the bus has, by its order columns; nil for none.
	after []string
	// bound is up to where rows are to be taken in next; nil for none.
	bound *bound
	// woken: the database has said that there may be rows.
	woken bool
	// pause before the next look at writers.
	pause time.Duration
}

// bound is the last row that there was at a time. Rows up to it are complete once they have settled, and every transaction has ended that wrote to the
// table then: whoever writes afterwards gets a larger cursor.
type bound struct {
	row     []string
	seen    time.Time
	writers map[string]int32 // the process of each transaction; 0 for a prepared one
}

func (r *pollRun) run(ctx context.Context) error {
	for {
		wait, err := r.round(ctx)
		if err != nil {
			return err
		}
		again, err := r.wait(ctx, wait)
		if err != nil || !again {
			return err
		}
	}
}

// round does what is to be done now, and tells how long there is nothing to do then.
func (r *pollRun) round(ctx context.Context) (time.Duration, error) {
	if r.bound == nil {
		r.woken = false
		if errors.Is(r.bus.Ready(), sdk.ErrSuspended) {
			return r.interval, nil
		}
		row, err := r.last(ctx)
		if err != nil || row == nil {
			return r.interval, err
		}
		b := &bound{row: row, seen: time.Now()}
		if b.writers, err = r.writers(ctx); err != nil {
			return 0, err
		}
		r.bound, r.pause = b, minWritersPause
	}
	if rest := r.settle - time.Since(r.bound.seen); rest > 0 {
		return rest, nil
	}
	if left, err := r.await(ctx); err != nil || left {
		return r.pause, err
	}
	if err := r.drain(ctx); err != nil {
		return 0, err
	}
	r.bound = nil
	return 0, nil
}

// await the writers that there were when the bound was seen; left tells that some have not ended.
func (r *pollRun) await(ctx context.Context) (left bool, err error) {
	if len(r.bound.writers) == 0 {
		return false, nil
	}
	now, err := r.writers(ctx)
	if err != nil {
		return false, err
	}
	for transaction := range r.bound.writers {
		if _, open := now[transaction]; !open {
			delete(r.bound.writers, transaction)
		}
	}
	since := time.Since(r.bound.seen) - r.settle
	if len(r.bound.writers) == 0 {
		r.health.watched(nil)
		return false, nil
	}
	if since > writersGrace {
		for _, process := range r.bound.writers {
			r.health.watched(r.systemErrorf("rows of %s wait for the end of a transaction of process %d that has been writing to it for more than %s (pg_stat_activity, or pg_prepared_xacts for process 0)",
				r.Name, process, since.Truncate(time.Minute)))
			break
		}
	}
	r.pause = min(2*r.pause, maxWritersPause)
	return true, nil
}

// wait until it is time, the database has said that there may be rows, or the connection has broken; again is false when other credentials are to
// be used.
func (r *pollRun) wait(ctx context.Context, limit time.Duration) (again bool, err error) {
	if limit <= 0 || r.woken && r.bound == nil {
		return true, ctx.Err()
	}
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	other := make(chan struct{})
	go func() {
		select {
		case <-r.changed:
			close(other)
			cancel()
		case <-stop:
		}
	}()
	for err == nil && (!r.woken || r.bound != nil) {
		err = r.conn.PgConn().WaitForNotification(inner)
	}
	select {
	case <-other:
		return false, nil
	default:
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case inner.Err() != nil && !r.conn.IsClosed():
		return true, nil
	default:
		return true, err
	}
}

// pollPosition is the document of the source's position.
type pollPosition struct {
	// Of what: another table, or another order, has other positions.
	Of string `json:"of"`
	// After is the row; nil for the beginning.
	After []string `json:"after"`
}

func (s *poll) of() string {
	return s.schema + "." + s.table + " (" + strings.Join(s.order(), ", ") + ")"
}

// resume where the last pod has stopped, or begin.
func (r *pollRun) resume(ctx context.Context) error {
	raw, err := r.rt.Position.Load(ctx)
	if err != nil {
		return notKept(err)
	}
	var at pollPosition
	if raw != nil {
		if err := json.Unmarshal(raw, &at); err != nil {
			return r.systemErrorf("the position of the source is not one of a table: %w", err)
		}
		if at.Of == r.of() && (at.After == nil || len(at.After) == len(r.order())) {
			r.after = at.After
			return nil
		}
		r.rt.Log.Info("the position is of something else, and the source begins anew", "of", at.Of, "now", r.of())
	}
	if r.Start == startBeginning {
		return nil
	}
	if r.after, err = r.last(ctx); err != nil {
		return err
	}
	// It is stored at once, so that another pod does not begin later.
	return r.store(ctx)
}

// store the position.
func (r *pollRun) store(ctx context.Context) error {
	raw, err := json.Marshal(pollPosition{Of: r.of(), After: r.after})
	if err != nil {
		return err
	}
	if len(raw) > contract.MaxPosition {
		return r.systemErrorf("table %s: cursor and key of a row have %d bytes, and at most about %d can be remembered: choose smaller columns", r.Name, len(raw), contract.MaxPosition)
	}
	return notKept(r.rt.Position.Store(ctx, raw))
}

// notKept is what an error of the position says: that the broker is away is not the database's.
func notKept(err error) error {
	var unavailable *sdk.UnavailableError
	if err == nil || errors.Is(err, sdk.ErrMoved) || errors.As(err, &unavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotTaken, err)
}
