package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Bounds of publishing.
const (
	// maxPipelined messages that wait for their confirmation, where every message is published by itself.
	maxPipelined = 1024
	// publishPatience is how long Publish tries again by itself when the broker is away or breaks off.
	publishPatience = 8 * time.Second
	// fullProbe is how often one message is let through to try while the bus is full; fullSettle for how long all of those must get through
	// before everybody is let through again: what makes room on a full bus, the relay, comes first. fullForgotten is when a full bus that
	// nobody has tried since is no longer reported.
	fullProbe     = time.Second
	fullSettle    = 5 * time.Second
	fullForgotten = time.Minute
)

// publisher is the sdk.Publisher of a source.
type publisher struct {
	envelope *envelope
	// door judges bodies by the source's schema; nil where there is none.
	door    *door
	conn    *connection
	replies *replies
	metrics *sourceMetrics
	// batches is nil where messages are pipelined one by one.
	batches *batches
	slots   chan struct{}
	groups  sync.Pool
	closed  atomic.Pointer[error]
	changed func()

	mu sync.Mutex
	// trouble is the last error that was not the message's own, nil after a success.
	trouble      error
	troubleSince time.Time
	hasTrouble   atomic.Bool
	nextProbe    atomic.Int64
	// settles is since when every try has got through after the bus was full; zero while it is.
	settles time.Time
}

func newPublisher(c *contract.Config, conn *connection, r *replies, m *sourceMetrics, changed func()) *publisher {
	p := newBarePublisher(c, conn, r, m, changed)
	p.envelope = newEnvelope(c)
	p.envelope.keyless = m.keyless.Inc
	if c.Source.Suspended {
		p.close(sdk.ErrSuspended)
	}
	return p
}

// newBarePublisher has no envelope: it publishes what is encoded.
func newBarePublisher(c *contract.Config, conn *connection, r *replies, m *sourceMetrics, changed func()) *publisher {
	p := &publisher{conn: conn, replies: r, metrics: m, slots: make(chan struct{}, maxPipelined), changed: changed}
	p.groups.New = func() any { return &group{done: make(chan struct{}, 1)} }
	if c.Broker.Fsync {
		p.batches = newBatches(p)
	}
	return p
}

// close makes every Publish and Ready answer with the error.
func (p *publisher) close(err error) { p.closed.Store(&err) }

// group is the messages of one call of Publish.
type group struct {
	items []publication
	left  atomic.Int32
	done  chan struct{}
}

// publication is one message on its way.
type publication struct {
	encoded
	publisher *publisher
	group     *group
	err       error
	stored    bool
	duplicate bool
	// alone: do not put it into a batch.
	alone bool
	// slot says that it holds one of the publisher's slots.
	slot bool
}

// confirm the outcome of this publication.
func (i *publication) confirm(duplicate bool, err error) {
	if i.slot {
		i.slot = false
		<-i.publisher.slots
	}
	if b := i.publisher.batches; b != nil {
		b.singleDone()
	}
	i.finish(duplicate, err)
}

func (i *publication) finish(duplicate bool, err error) {
	i.err, i.stored, i.duplicate = err, err == nil, duplicate
	if i.group.left.Add(-1) == 0 {
		i.group.done <- struct{}{}
	}
}

// Publish implements sdk.Publisher.
func (p *publisher) Publish(ctx context.Context, messages ...*sdk.Message) error {
	if err := p.closed.Load(); err != nil {
		p.metrics.refused("suspended", len(messages))
		return *err
	}
	if len(messages) == 0 {
		return nil
	}
	begun := time.Now()
	p.metrics.received.Add(float64(len(messages)))
	if p.hasTrouble.Load() && !p.mayTry(begun, true) {
		p.metrics.refused("full", len(messages))
		return sdk.ErrFull
	}
	if p.door != nil {
		if err := p.judge(ctx, messages); err != nil {
			return err
		}
	}
	g := p.groups.Get().(*group)
	defer p.groups.Put(g)
	if cap(g.items) < len(messages) {
		g.items = make([]publication, len(messages))
	}
	g.items = g.items[:len(messages)]
	defer g.release()
	for i, m := range messages {
		item := &g.items[i]
		item.publisher, item.group, item.err, item.stored, item.alone = p, g, nil, false, false
		if err := p.envelope.encode(&item.encoded, m, begun); err != nil {
			p.metrics.refused("invalid", len(messages))
			if p.envelope.tracer != nil {
				g.endSpans(err)
			}
			if len(messages) > 1 {
				err = fmt.Errorf("message %d: %w", i, err)
			}
			return fmt.Errorf("%w: %w", sdk.ErrInvalid, err)
		}
	}
	err := p.publish(ctx, g, begun)
	p.settle(g, err, begun)
	return err
}

// release what the group holds of the caller's; very large groups are not kept.
func (g *group) release() {
	for i := range g.items {
		g.items[i].Data = nil
	}
	if cap(g.items) > maxBatchMessages {
		g.items = nil
	}
}

// publish until everything is stored, with patience for a broker that is away.
func (p *publisher) publish(ctx context.Context, g *group, begun time.Time) error {
	for try := 0; ; try++ {
		err := p.attempt(ctx, g)
		if err == nil {
			return nil
		}
		if err = classify(err); !errors.Is(err, errAway) || ctx.Err() != nil || time.Since(begun) > publishPatience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(min(time.Second, 25*time.Millisecond<<min(try, 6))):
		}
	}
}

// attempt publishes what is not stored yet and waits for the outcome.
func (p *publisher) attempt(ctx context.Context, g *group) error {
	n := 0
	for i := range g.items {
		if !g.items[i].stored {
			n++
		}
	}
	g.left.Store(int32(n))
	if p.batches != nil {
		p.batches.submit(g, n)
	} else {
		p.pipelineAll(ctx, g)
	}
	select {
	case <-g.done:
	case <-ctx.Done():
		if p.batches != nil {
			p.batches.withdraw(g, ctx.Err())
		}
		// What is with the broker is waited for: its outcome is told in any case.
		<-g.done
	}
	var err error
	for i := range g.items {
		if e := g.items[i].err; e != nil && (err == nil || isWorse(e, err)) {
			err = e
		}
	}
	return err
}

// isWorse: an error that no further try can mend is told before one that it can.
func isWorse(a, b error) bool {
	return !errors.Is(classify(a), errAway) && errors.Is(classify(b), errAway)
}

// pipelineAll sends the messages of a call that are not stored.
func (p *publisher) pipelineAll(ctx context.Context, g *group) {
	for i := range g.items {
		if item := &g.items[i]; !item.stored {
			p.pipeline(ctx, item)
		}
	}
}

// pipeline sends one message at once.
func (p *publisher) pipeline(ctx context.Context, item *publication) {
	select {
	case p.slots <- struct{}{}:
		item.slot = true
	case <-ctx.Done():
		item.finish(false, ctx.Err())
		return
	}
	if _, err := p.replies.publish(&item.Msg, item); err != nil {
		item.confirm(false, err)
	}
}

// errAway is wrapped by errors that may pass by trying again: the broker is away, busy, or broke off.
var errAway = errors.New("the bus has not confirmed the message")

// classify an error of the broker for the caller.
func classify(err error) error {
	var api *apiError
	switch {
	case errors.Is(err, errAway), errors.Is(err, sdk.ErrFull), errors.Is(err, sdk.ErrInvalid):
		return err
	case isCode(err, codeStreamFull, codeInsufficient, codeStorage):
		return fmt.Errorf("%w: %w", sdk.ErrFull, err)
	case errors.Is(err, nats.ErrMaxPayload), isCode(err, codeMessageTooLarge):
		return fmt.Errorf("%w: it is larger than the broker takes: %w", sdk.ErrInvalid, err)
	case errors.As(err, &api) && api.Code < 500:
		return err
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, context.Canceled):
		return err
	default:
		return fmt.Errorf("%w: %w", errAway, err)
	}
}

// settle counts what came of a call, and keeps the state of publishing.
func (p *publisher) settle(g *group, err error, begun time.Time) {
	if p.envelope.tracer != nil {
		g.endSpans(err)
	}
	stored, duplicates := 0, 0
	for i := range g.items {
		if g.items[i].stored {
			stored++
			if g.items[i].duplicate {
				duplicates++
			}
		}
	}
	if stored > 0 {
		p.metrics.published.Add(float64(stored))
		if duplicates > 0 {
			p.metrics.duplicates.Add(float64(duplicates))
		}
	}
	switch {
	case err == nil:
		p.metrics.latency.Observe(time.Since(begun).Seconds())
		if p.hasTrouble.Load() {
			p.recovered(time.Now())
			p.conn.worked()
		}
		return
	case errors.Is(err, sdk.ErrInvalid):
		p.metrics.refused("invalid", len(g.items)-stored)
		return
	case errors.Is(err, context.Canceled):
		p.metrics.refused("cancelled", len(g.items)-stored)
		return
	case errors.Is(err, sdk.ErrFull):
		p.metrics.refused("full", len(g.items)-stored)
	default:
		p.metrics.refused("broker", len(g.items)-stored)
	}
	p.setTrouble(err)
}

// recovered: a message got through. After a full bus, one does not make a summer.
func (p *publisher) recovered(now time.Time) {
	p.mu.Lock()
	if p.settles.IsZero() {
		p.settles = now
	}
	settled := !errors.Is(p.trouble, sdk.ErrFull) || now.Sub(p.settles) >= fullSettle
	p.mu.Unlock()
	if settled {
		p.setTrouble(nil)
	}
}

// mayTry tells whether a message may be tried now: while the bus is full, or has room for a moment only, one a second. take says that it
// is the one.
func (p *publisher) mayTry(now time.Time, take bool) bool {
	p.mu.Lock()
	full := errors.Is(p.trouble, sdk.ErrFull)
	p.mu.Unlock()
	if !full {
		return true
	}
	next := p.nextProbe.Load()
	return now.UnixNano() >= next && (!take || p.nextProbe.CompareAndSwap(next, now.Add(fullProbe).UnixNano()))
}

func (p *publisher) setTrouble(err error) {
	p.mu.Lock()
	p.settles = time.Time{}
	changed := (p.trouble == nil) != (err == nil) || err != nil && errors.Is(err, sdk.ErrFull) != errors.Is(p.trouble, sdk.ErrFull)
	if changed {
		p.troubleSince = time.Now()
	}
	p.trouble = err
	p.hasTrouble.Store(err != nil)
	p.nextProbe.Store(time.Now().Add(fullProbe).UnixNano())
	p.mu.Unlock()
	if changed {
		p.changed()
	}
}

// Ready implements sdk.Publisher. While the bus is full, one message a second is let through to find out whether it still is.
func (p *publisher) Ready() error {
	if err := p.closed.Load(); err != nil {
		return *err
	}
	if !p.conn.isUp() {
		return errAway
	}
	if p.hasTrouble.Load() && !p.mayTry(time.Now(), false) {
		return sdk.ErrFull
	}
	return nil
}

// state of publishing for the report: nil while it works.
func (p *publisher) state() (error, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	probed := time.Unix(0, p.nextProbe.Load())
	if p.trouble != nil && time.Since(probed) > fullForgotten {
		p.trouble = nil
		p.hasTrouble.Store(false)
	}
	return p.trouble, p.troubleSince
}
