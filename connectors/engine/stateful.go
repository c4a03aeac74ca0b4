package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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
	// missedScan is the time between two scans for alarms that were missed.
	missedScan = 10 * time.Second
)

// The kinds of documents, as a part of their subjects.
const (
	stateDeduplicate = "deduplicate."
	stateAggregate   = "aggregate."
	stateResequence  = "resequence."
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
	keyLocks
}

// stateful operation of a destination whose last step keeps state.
func (s *relaySink) stateful(o *relayOperation, r contract.Route) (sdk.Operation, error) {
	step := r.Stateful()
	of, err := steps.CompileCorrelation(*step)
	if err != nil {
		return nil, err
	}
	kind, m := o.machine(step, r.UID)
	if m == nil {
		return &deduplication{correlated: s.correlated(o, r, kind, step.Name, of), window: time.Duration(step.Deduplicate.Window)}, nil
	}
	k := s.keeping(o, r, kind, step.Name, of, m)
	go k.alarms.run(k.work)
	go k.recover()
	return k, nil
}

// leftovers of a step that was removed from a destination, or replaced by one of another kind: what waits in its documents has been acknowledged, and
// passes.
func (s *relaySink) leftovers(o *relayOperation, r contract.Route) {
	now := ""
	if step := r.Stateful(); step != nil {
		now, _ = o.machine(step, r.UID)
	}
	for _, former := range []*contract.Step{{Aggregate: &contract.Aggregate{}}, {Resequence: &contract.Resequence{Timeout: 1}}} {
		kind, m := o.machine(former, r.UID)
		if kind == now {
			continue
		}
		if a, ok := m.(*aggregator); ok {
			a.removed, a.Timeout = true, 1
		}
		k := s.keeping(o, r, kind, "", nil, m)
		go k.finish()
	}
}

// machine of a step, and the kind of its documents; nil where there is nothing to be kept but who was first.
func (o *relayOperation) machine(step *contract.Step, uid string) (string, machine) {
	switch {
	case step.Aggregate != nil:
		return stateAggregate, &aggregator{Aggregate: *step.Aggregate, event: func(key string, group uint64, members []member, completion string) storedEvent {
			return o.groupEvent(uid, key, group, members, completion)
		}}
	case step.Resequence != nil:
		return stateResequence, &resequencer{Resequence: *step.Resequence, event: o.storedEvent}
	default:
		return stateDeduplicate, nil
	}
}

func (s *relaySink) correlated(o *relayOperation, r contract.Route, kind, step string, of *steps.Correlation) *correlated {
	return &correlated{
		relayOperation: o, step: step, of: of, store: s.stateStore(),
		subject: contract.StatePrefix(s.who.Namespace, r.Integration, r.UID, r.Destination) + kind,
	}
}

func (s *relaySink) keeping(o *relayOperation, r contract.Route, kind, step string, of *steps.Correlation, m machine) *keeping {
	k := &keeping{correlated: s.correlated(o, r, kind, step, of), machine: m, log: s.log.With("route", r.Name, "destination", r.Destination), work: s.work}
	k.alarms = newAlarms(k.ripen)
	return k
}

// storedEvent that a message becomes.
func (o *relayOperation) storedEvent(m *sdk.Delivery, now time.Time) (storedEvent, error) {
	var out encoded
	if err := o.encode(&out, m, now); err != nil {
		return storedEvent{}, err
	}
	return out.store(), nil
}

// keyLocks hold what is kept of a key against others of this pod.
type keyLocks [64]sync.Mutex

func (k *keyLocks) lock(key string) func() {
	f := fnv.New32a()
	_, _ = f.Write([]byte(key)) // a hash takes everything
	l := &k[f.Sum32()%uint32(len(k))]
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
	// It is not kept in memory: the broker says who was first.
	doc, err := (&stateDoc{Key: key, Owner: id}).encode()
	if err != nil {
		return false, err
	}
	for range conflictTries {
		_, err = d.store.write(ctx, subject, doc, 0, d.window)
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

// failure of the store, in the engine's terms.
func (c *correlated) failure(err error) error {
	if errors.Is(err, errConflict) {
		return fmt.Errorf("several pods write the document of its key: %w", err) // to be tried again
	}
	if errors.Is(err, errStateFull) {
		return sdk.Unavailable(contract.ReasonStreamFull, fmt.Errorf("the state of Integration %s is full: raise spec.retention.stateSize", c.sink.who.Integration))
	}
	return c.relayOperation.failure(err)
}
