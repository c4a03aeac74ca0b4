package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// keeping writes messages into documents, and publishes what the machine makes of them.
type keeping struct {
	*correlated
	machine machine
	log     *slog.Logger
	// work lasts as long as the pod does.
	work   context.Context //nolint:containedctx // what waits is ripened by the clock, not by a caller
	alarms *alarms
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
		n, size, counted := taken, next.outBytes(0), len(next.Out)
		for ; n < len(list) && size < maxOut; n++ {
			own[n] = k.machine.take(next, list[n], now)
			size, counted = size+next.outBytes(counted), len(next.Out)
		}
		err = k.write(ctx, subject, doc, next, seq)
		if errors.Is(err, errConflict) && tries < conflictTries {
			tries++
			select {
			case <-time.After(time.Duration(rand.IntN(20<<min(tries, 5))) * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			clear(own[taken:]) // they were judged by a document that was not written
			return own, err
		}
		if taken = n; taken == len(list) {
			return own, nil
		}
	}
}

// write a document that has changed, publish what it holds, and write it without that.
func (k *keeping) write(ctx context.Context, subject string, was, doc *stateDoc, seq uint64) (err error) {
	if !was.same(doc) {
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

// wake looks at a document at a time; the zero time means not at all. What is further away than a scan of all documents is left to that.
func (k *keeping) wake(subject string, at time.Time) {
	if time.Until(at) > laterScan+settledScan {
		at = time.Time{}
	}
	k.alarms.set(subject, at)
}

// ripen what has waited long enough, or could not be published before.
func (k *keeping) ripen(subject string) {
	if k.work.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(k.work, 4*stateTimeout)
	defer cancel()
	doc, seq, err := k.store.get(ctx, subject)
	if err == nil && seq == 0 {
		return // it went with its Route
	}
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
	var due, missed time.Time
	scans := 0
	for tick := time.Duration(0); ; tick = missedScan {
		select {
		case <-k.work.Done():
			return
		case <-time.After(tick):
		}
		if at := k.alarms.takeMissed(); missed.IsZero() || (!at.IsZero() && at.Before(missed)) {
			missed = at
		}
		if now := time.Now(); now.Before(due) && (missed.IsZero() || now.Before(missed)) {
			continue
		}
		missed = time.Time{}
		switch _, err := k.scan(); {
		case err != nil:
			k.log.Debug("the documents cannot be read yet", "error", err)
			due = time.Now()
		case scans == 0:
			due, scans = time.Now().Add(settledScan), 1
		default:
			due = time.Now().Add(laterScan)
		}
	}
}

// finish what a step that was removed has left behind, also what the pod that this one replaces still writes.
func (k *keeping) finish() {
	work, cancel := context.WithCancel(k.work)
	defer cancel()
	go k.alarms.run(work)
	quiet := 0
	for wait := time.Duration(0); quiet < 2; {
		select {
		case <-work.Done():
			return
		case <-time.After(wait):
		}
		wait = settledScan
		switch found, err := k.scan(); {
		case errors.Is(err, errNoState):
			return
		case err != nil:
			wait = missedScan
		case found == 0:
			quiet++
		default:
			k.log.Info("a step was removed from the Route: what waited for others passes", "documents", found)
			quiet = 0
		}
	}
}

// scan all documents for those whose time will come.
func (k *keeping) scan() (found int, err error) {
	err = k.store.scan(k.work, k.subject, func(subject string, doc *stateDoc) {
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
		if at.IsZero() {
			return
		}
		found++
		if !k.alarms.has(subject) {
			k.store.forget(subject) // another pod may have written it
			k.wake(subject, at)
		}
	})
	return found, err
}
