package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

const (
	// stateWorkers of one batch: keys that are worked on at the same time.
	stateWorkers = 32
	// conflictTries before a message is given back because others write its document all the time.
	conflictTries = 10
	// settledScan is when a pod looks at all documents again after its start, for the pod that it has replaced may have written some since;
	// laterScan is how often afterwards.
	settledScan = time.Minute
	laterScan   = 10 * time.Minute
)

// errFiltered: the message is to be delivered to nobody, which is no failure.
var errFiltered = errors.New("filtered")

// stepError is a message's own error in a step that the relay runs.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// correlated is what the operations of all steps that keep state have in common.
type correlated struct {
	*relayOperation
	step    string
	of      *steps.Correlation
	store   *stateStore
	subject string
	locks   [64]sync.Mutex
}

// stateful operation of a destination whose last step keeps state.
func (s *relaySink) stateful(o *relayOperation, r contract.Route) (sdk.Operation, error) {
	step := r.Stateful()
	of, err := steps.CompileCorrelation(*step)
	if err != nil {
		return nil, err
	}
	c := correlated{
		relayOperation: o, step: step.Name, of: of, store: s.stateStore(),
		subject: contract.StatePrefix(s.who.Namespace, r.Integration, r.UID, r.Destination),
	}
	if step.Deduplicate != nil {
		c.subject += "deduplicate."
		return &deduplication{correlated: &c, window: time.Duration(step.Deduplicate.Window)}, nil
	}
	k := &keeping{correlated: &c, log: s.log.With("route", r.Name, "destination", r.Destination), work: s.work, timers: map[string]*time.Timer{}}
	if a := step.Aggregate; a != nil {
		c.subject += "aggregate."
		k.machine = &aggregator{Aggregate: *a, event: func(key string, group uint64, members []member, completion string) storedEvent {
			return o.groupEvent(r.UID, key, group, members, completion)
		}}
	} else {
		c.subject += "resequence."
		k.machine = &resequencer{Resequence: *step.Resequence, event: o.storedEvent}
	}
	go k.recover()
	return k, nil
}

// storedEvent that a message becomes.
func (o *relayOperation) storedEvent(m *sdk.Delivery, now time.Time) (storedEvent, error) {
	var out encoded
	if err := o.encode(&out, m, now); err != nil {
		return storedEvent{}, err
	}
	return out.store(), nil
}

// lock a document against others of this pod.
func (c *correlated) lock(key string) func() {
	l := &c.locks[hashOf(key)%uint64(len(c.locks))]
	l.Lock()
	return l.Unlock
}

// byKey gives the positions of a batch's messages by their keys, each in its order. Messages without one get their error.
func (c *correlated) byKey(batch []*sdk.Delivery, results []error) map[string][]int {
	keys := map[string][]int{}
	for i, m := range batch {
		key, err := c.of.Key(m.Message)
		if err != nil {
			results[i] = c.own(err)
			continue
		}
		keys[key] = append(keys[key], i)
	}
	return keys
}

// own error of a message.
func (c *correlated) own(err error) error {
	if errors.Is(err, errHopLimit) {
		return sdk.Permanent(err)
	}
	return sdk.Permanent(&stepError{c.step, err})
}

// each key of a batch, some at a time.
func each(keys map[string][]int, do func(key string, positions []int)) {
	var group errgroup.Group
	group.SetLimit(stateWorkers)
	for key, positions := range keys {
		group.Go(func() error {
			do(key, positions)
			return nil
		})
	}
	_ = group.Wait() // do reports by position
}

// deduplication lets the first message of a key pass.
type deduplication struct {
	*correlated
	window time.Duration
}

// Write implements sdk.Operation.
func (d *deduplication) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results, firsts := make([]error, len(batch)), make([]bool, len(batch))
	each(d.byKey(batch, results), func(key string, positions []int) {
		defer d.lock(key)()
		for n, i := range positions {
			mine, err := d.claim(ctx, key, batch[i].MessageID)
			switch {
			case err != nil:
				for _, i := range positions[n:] {
					results[i] = d.failure(err)
				}
				return
			case mine:
				firsts[i] = true
			default:
				results[i] = errFiltered
			}
		}
	})
	var pass []*sdk.Delivery
	for i, m := range batch {
		if firsts[i] {
			pass = append(pass, m)
		}
	}
	if len(pass) == 0 {
		return results
	}
	published := d.relayOperation.Write(ctx, pass)
	for i, n := 0, 0; i < len(batch); i++ {
		if firsts[i] {
			results[i] = published[n]
			n++
		}
	}
	return results
}

// claim a key for a message: true for the first, also when it comes again.
func (d *deduplication) claim(ctx context.Context, key, id string) (bool, error) {
	subject := d.subject + contract.StateToken(key)
	var err error
	for range conflictTries {
		_, err = d.store.put(ctx, subject, &stateDoc{Key: key, Owner: id}, 0, d.window)
		if !errors.Is(err, errConflict) {
			return err == nil, err
		}
		// Whoever was first is read from the broker, not from memory, for a key's time may be over.
		raw, seq, readErr := d.store.read(ctx, subject)
		if readErr != nil {
			return false, readErr
		}
		if seq > 0 {
			return ownerOf(raw) == id, nil
		}
	}
	return false, err
}

// keeping writes messages into documents, and publishes what the machine makes of them.
type keeping struct {
	*correlated
	machine machine
	log     *slog.Logger
	// work lasts as long as the pod does.
	work context.Context //nolint:containedctx // what waits is ripened by the clock, not by a caller

	mu     sync.Mutex
	timers map[string]*time.Timer
}

// Write implements sdk.Operation.
func (k *keeping) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	each(k.byKey(batch, results), func(key string, positions []int) {
		var list []*input
		var at []int
		for _, i := range positions {
			in, err := k.input(key, batch[i])
			if err != nil {
				results[i] = k.own(err)
				continue
			}
			list, at = append(list, in), append(at, i)
		}
		own, err := k.change(ctx, key, list)
		for n, i := range at {
			switch {
			case own[n] != nil:
				results[i] = k.own(own[n])
			case err != nil:
				results[i] = k.failure(err)
			}
		}
	})
	return results
}

func (k *keeping) input(key string, m *sdk.Delivery) (*input, error) {
	in := &input{Delivery: m, key: key}
	var err error
	switch k.machine.(type) {
	case *aggregator:
		in.last, err = k.of.Last(m.Message)
	case *resequencer:
		in.number, err = k.of.Number(m.Message)
	}
	return in, err
}

// change the document of a key: take messages in, let ripen what is ripe, write it, publish what that gives, and write that this is done. The
// errors by position are the messages' own; with the last one, nothing is known of any of them.
func (k *keeping) change(ctx context.Context, key string, list []*input) (own []error, err error) {
	defer k.lock(key)()
	own = make([]error, len(list))
	subject := k.subject + contract.StateToken(key)
	for taken, tries := 0, 0; ; {
		doc, seq, err := k.store.get(ctx, subject)
		if err != nil {
			return own, err
		}
		next, now := doc.clone(), time.Now()
		next.Key = key
		k.machine.ripen(next, now)
		n := taken
		for ; n < len(list) && next.outBytes() < maxOut; n++ {
			own[n] = k.machine.take(next, list[n], now)
		}
		err = k.write(ctx, subject, doc, next, seq)
		if errors.Is(err, errConflict) && tries < conflictTries {
			tries++
			clear(own[taken:])
			select {
			case <-time.After(time.Duration(rand.IntN(20<<min(tries, 5))) * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return own, err
		}
		if taken = n; taken == len(list) {
			return own, nil
		}
	}
}

// write a document that has changed, publish what it holds, and write it without that.
func (k *keeping) write(ctx context.Context, subject string, was, doc *stateDoc, seq uint64) (err error) {
	if seq == 0 || !was.same(doc) {
		if seq, err = k.store.put(ctx, subject, doc, seq, k.ttl(doc)); err != nil {
			return err
		}
	}
	if len(doc.Out) > 0 {
		if err := k.publish(ctx, doc.Out); err != nil {
			k.wake(subject, time.Now().Add(time.Second))
			return err
		}
		doc = doc.published()
		if _, err := k.store.put(ctx, subject, doc, seq, k.ttl(doc)); err != nil {
			k.wake(subject, time.Now().Add(time.Second))
			return err
		}
	}
	if limit := k.machine.timeout(); limit > 0 && doc.Since > 0 {
		k.wake(subject, time.UnixMilli(doc.Since).Add(limit))
	} else {
		k.wake(subject, time.Time{})
	}
	return nil
}

// ttl of a document: it stays while anything in it waits.
func (k *keeping) ttl(doc *stateDoc) time.Duration {
	if len(doc.Members)+len(doc.Waiting)+len(doc.Out) > 0 {
		return 0
	}
	return k.machine.idle()
}

// publish events one after the other, for their order is the document's.
func (k *keeping) publish(ctx context.Context, events []storedEvent) error {
	p := k.sink.publisher
	g := p.groups.Get().(*group)
	defer p.groups.Put(g)
	if cap(g.items) == 0 {
		g.items = make([]publication, 1)
	}
	g.items = g.items[:1]
	defer g.release()
	for _, e := range events {
		item := &g.items[0]
		item.publisher, item.group, item.err, item.stored, item.alone = p, g, nil, false, true
		item.load(e)
		if err := p.publish(ctx, g, time.Now()); err != nil {
			return err
		}
		p.metrics.published.Inc()
		if item.duplicate {
			p.metrics.duplicates.Inc()
		}
	}
	return nil
}

// wake looks at a document at a time; the zero time means not at all.
func (k *keeping) wake(subject string, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.timers[subject]; t != nil {
		t.Stop()
		delete(k.timers, subject)
	}
	if at.IsZero() || k.work.Err() != nil {
		return
	}
	k.timers[subject] = time.AfterFunc(max(0, time.Until(at)), func() { k.ripen(subject) })
}

// ripen what has waited long enough, or could not be published before.
func (k *keeping) ripen(subject string) {
	if k.work.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(k.work, 4*stateTimeout)
	defer cancel()
	doc, _, err := k.store.get(ctx, subject)
	if err == nil {
		_, err = k.change(ctx, doc.Key, nil)
	}
	if err != nil && k.work.Err() == nil {
		k.log.Warn("what has waited long enough cannot be passed on yet", "subject", subject, "error", err)
		k.store.forget(subject)
		k.wake(subject, time.Now().Add(stateTimeout))
	}
}

// recover what former pods have left behind: documents whose time comes, and events that were not published.
func (k *keeping) recover() {
	for next := time.Duration(0); ; {
		select {
		case <-k.work.Done():
			return
		case <-time.After(next):
		}
		switch err := k.scan(); {
		case err != nil:
			k.log.Debug("the documents cannot be read yet", "error", err)
			next = stateTimeout
		case next < settledScan:
			next = settledScan
		default:
			next = laterScan
		}
	}
}

func (k *keeping) scan() error {
	return k.store.scan(k.work, k.subject, func(subject string, doc *stateDoc) {
		if !strings.HasPrefix(subject, k.subject) {
			return
		}
		at := time.Time{}
		switch limit := k.machine.timeout(); {
		case len(doc.Out) > 0:
			at = time.Now()
		case limit > 0 && doc.Since > 0:
			at = time.UnixMilli(doc.Since).Add(limit)
		}
		k.mu.Lock()
		known := k.timers[subject] != nil
		k.mu.Unlock()
		if !known && !at.IsZero() {
			k.store.forget(subject)
			k.wake(subject, at)
		}
	})
}

// failure of the store, in the engine's terms.
func (c *correlated) failure(err error) error {
	var api *apiError
	if errors.Is(err, errConflict) {
		return fmt.Errorf("several pods write the document of its key: %w", err) // to be tried again
	}
	if errors.As(err, &api) && isCode(err, codeStreamFull, codeInsufficient, codeStorage) {
		return sdk.Unavailable(contract.ReasonStreamFull, fmt.Errorf("the state of Integration %s is full: raise spec.retention.stateSize", c.sink.who.Integration))
	}
	return c.relayOperation.failure(err)
}
