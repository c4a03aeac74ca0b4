package engine

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// maxAlarms is how many documents of a destination are waited for at a time. Of more, those whose time comes last are found by a later scan.
const maxAlarms = 10_000

// alarms are times at which documents are to be looked at. What they hold is bounded, and so is how many are looked at together, however many
// documents there are.
type alarms struct {
	ring func(subject string)

	mu    sync.Mutex
	by    map[string]*alarm
	order alarmHeap
	// missed is the earliest time of those for which there was no room; zero for none.
	missed time.Time
	// changed has a value when the first alarm is another.
	changed chan struct{}
}

type alarm struct {
	subject string
	at      time.Time
	index   int
}

func newAlarms(ring func(subject string)) *alarms {
	return &alarms{ring: ring, by: map[string]*alarm{}, changed: make(chan struct{}, 1)}
}

// set the time of a document; the zero time means never.
func (a *alarms) set(subject string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.by[subject]
	switch {
	case at.IsZero() && known == nil:
		return
	case at.IsZero():
		a.remove(known)
	case known != nil:
		known.at = at
		heap.Fix(&a.order, known.index)
	default:
		if len(a.order) >= maxAlarms && !a.makeRoom(at) {
			return
		}
		known = &alarm{subject: subject, at: at}
		a.by[subject] = known
		heap.Push(&a.order, known)
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// makeRoom for one at a time, by giving up one of the later half if it is later than that. One that is given up is missed.
func (a *alarms) makeRoom(at time.Time) bool {
	last := a.order[len(a.order)-1]
	given := at
	if last.at.After(at) {
		given = last.at
		a.remove(last)
	}
	if a.missed.IsZero() || given.Before(a.missed) {
		a.missed = given
	}
	return given != at
}

func (a *alarms) remove(x *alarm) {
	heap.Remove(&a.order, x.index)
	delete(a.by, x.subject)
}

// has tells whether a document is waited for.
func (a *alarms) has(subject string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[subject] != nil
}

// takeMissed is the earliest time that was missed, which is forgotten.
func (a *alarms) takeMissed() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.missed
	a.missed = time.Time{}
	return at
}

// run until ctx ends.
func (a *alarms) run(ctx context.Context) {
	places := make(chan struct{}, stateWorkers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		subject, wait := a.next()
		if subject != "" {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-places }()
				a.ring(subject)
			}()
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-a.changed:
		case <-ctx.Done():
			return
		}
	}
}

// next document whose time has come, which is waited for no more; empty for none, and how long there will be none.
func (a *alarms) next() (subject string, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.order) == 0 {
		return "", time.Hour
	}
	first := a.order[0]
	if wait = time.Until(first.at); wait > 0 {
		return "", wait
	}
	a.remove(first)
	return first.subject, 0
}

// alarmHeap implements heap.Interface.
type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	a.index = len(*h)
	*h = append(*h, a)
}

func (h *alarmHeap) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return a
}
