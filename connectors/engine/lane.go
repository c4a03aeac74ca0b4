package engine

import (
	"context"
	"sync"
	"time"

	"github.com/metip/metip/connectors/steps"
)

// A destination whose order is kept is read by lanes (contract.Order), each of which is a destination of its own here: a durable consumer that
// the broker gives to one pod at a time, the one that it has pinned. That alone reorders when a lane changes hands, for the new pod gets what
// comes next while the former one still works, and what that leaves unfinished comes later. Hence:
//
//   - Who is pinned waits for half of the pin's time, asks that the durable goes back to what was acknowledged last (CONSUMER.RESET), and takes
//     messages only from consumer sequence 1 on and without a gap. Where one is missing it begins anew.
//   - A pod delivers under a lease (tenure): an answer of the broker, asked for less than three eighths of the pin's time ago, that it is the one
//     that is pinned. When the lease lapses, what is being written is given up and is not acknowledged.
//   - What fails is tried again in its place, never given back. Within a lane only messages of different keys are under way together.
//
// So the system sees each key's messages in their order; after a hand-over it may see some again, from an earlier one on, without a gap.

// lanePhase is what a pod is to a lane.
type lanePhase int

const (
	// laneStandby waits to be pinned.
	laneStandby lanePhase = iota
	// laneSettling is pinned, and waits until it may begin.
	laneSettling
	// laneActive delivers.
	laneActive
)

const (
	// laneBatch is how much a lane asks for at a time: what is sent to a pod that has died waits until the lane is taken over.
	laneBatch = 32
	// laneSpan is how many messages may be delivered past one that is not done with. After a hand-over they come again.
	laneSpan = 1024
	// lanePatience, in pin times, is how long a pod keeps a lane whose system it cannot reach.
	lanePatience = 6
)

// lane of an ordered destination. Its destination's lock guards it.
type lane struct {
	d     *destination
	index int
	// key of a message, where it is not its partition key.
	key *steps.Key
	// pinTime and window are the durable's; zero until the broker has told them.
	pinTime time.Duration
	window  int

	phase lanePhase
	// turn counts the changes of phase, so that what was asked before one is not taken for an answer after it.
	turn int
	// pin is the broker's name for this pod while it is pinned; served is the last one under which something was taken.
	pin, served string
	// due is when a settling lane may begin.
	due time.Time
	// expect is the next consumer sequence.
	expect uint64
	// tenure is the present lease; former ones still have something under way.
	tenure *tenure
	former []*tenure
	// busy are the keys that are under way, inflight the messages.
	busy     map[string]struct{}
	blocked  map[string]struct{}
	inflight int
	// since is when the lane became active.
	since time.Time
	// pulled is when the broker last heard that the pod wants to stay pinned. silent is an inbox that nobody reads.
	pulled time.Time
	silent string
	// orphanAt is when a standby looks whether the lane is served, orphans how often in a row it was not.
	orphanAt time.Time
	orphans  int

	poke       chan struct{}
	confirming sync.Mutex
}

// tenure is a lease of a lane: from a pin to its loss. Its destination's lock guards it, but for the context.
type tenure struct {
	// confirmed is when the question was asked that the broker last answered with this pod's pin.
	confirmed time.Time
	inflight  int
	// over: the lease has lapsed; nothing of it counts any more.
	over   bool
	ctx    context.Context //nolint:containedctx // it is the lease: writes end with it
	cancel context.CancelFunc
}

// place of a held message in its lane.
type place struct {
	key    string
	tenure *tenure
	// consumer is its sequence since the lane was taken over; 0 for one from before.
	consumer uint64
	// due is when it may be tried again.
	due time.Time
	// busy: a worker has it. probes counts the tries while the system was unavailable.
	busy   bool
	probes int
}

func newLane(d *destination, index int) *lane {
	d.pull.d, d.pull.subject, d.pull.bytes = d, nextSubject(d), smallPull
	return &lane{
		d: d, index: index, poke: make(chan struct{}, 1), busy: map[string]struct{}{}, blocked: map[string]struct{}{},
		silent: d.sink.conn.nc.NewInbox(),
	}
}

// lease is for how long an answer holds; the new pod waits longer.
func (l *lane) lease() time.Duration { return l.pinTime * 3 / 8 }

func (l *lane) wake() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// run until the context ends, and then finish what is under way.
func (l *lane) run(ctx, deliver context.Context) {
	d := l.d
	if !l.learn(ctx) {
		d.drain()
		return
	}
	d.sink.conn.listen(listener{up: l.reconnected})
	defer context.AfterFunc(ctx, func() {
		d.drain()
		l.wake()
	})()
	d.mu.Lock()
	l.stand()
	d.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.poke:
		}
		next, done := l.step(deliver)
		if done {
			return
		}
		timer.Reset(next)
	}
}

// What a step asks the broker, which it does without the lock.
type laneTask int

const (
	laneNothing laneTask = iota
	laneTakeOver
	laneConfirm
	laneLookAfter
)

// active is 1 while this pod delivers the lane.
func (l *lane) active() float64 {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.phase == laneActive {
		return 1
	}
	return 0
}

// step of the lane's clockwork. It says when the next one is due, or that the lane has been left.
func (l *lane) step(deliver context.Context) (next time.Duration, done bool) {
	d := l.d
	now := time.Now()
	d.mu.Lock()
	if d.stopping && (deliver.Err() != nil || l.inflight == 0 && d.workers == 0) {
		l.leave()
		d.mu.Unlock()
		return 0, true
	}
	l.expire(now)
	l.touch(now)
	l.miss(now)
	task := l.task(now)
	next = l.pinTime / 8
	if wait := time.Until(l.due); l.phase == laneSettling && wait > 0 {
		next = min(next, wait)
	}
	d.mu.Unlock()
	switch task {
	case laneTakeOver:
		l.takeOver(deliver)
	case laneConfirm:
		l.confirm(deliver)
	case laneLookAfter:
		l.lookAfter(deliver)
	}
	return next, false
}

// task that is due. The caller holds the lock.
func (l *lane) task(now time.Time) laneTask {
	d := l.d
	switch l.phase {
	case laneStandby:
		if d.pull.sub == nil {
			l.listenAnew()
		}
		d.request()
		if !d.stopping && !now.Before(l.orphanAt) {
			l.orphanAt = now.Add(2 * l.pinTime)
			return laneLookAfter
		}
	case laneSettling:
		mine := 0
		if l.tenure != nil {
			mine = l.tenure.inflight
		}
		if l.inflight != mine {
			break // a write under another lease does not end: the pin may go
		}
		l.stay(now)
		if !d.stopping && !now.Before(l.due) {
			return laneTakeOver
		}
		if mine > 0 && now.Sub(l.tenure.confirmed) >= l.pinTime/8 {
			return laneConfirm
		}
	case laneActive:
		if l.tired(now) {
			l.unpin()
			d.pull.next = now.Add(l.pinTime / 4) // others first
			l.stand()
			break
		}
		d.request()
		l.stay(now)
		if (l.inflight > 0 || len(d.queue) > 0) && now.Sub(l.tenure.confirmed) >= l.pinTime/8 {
			return laneConfirm
		}
	}
	return laneNothing
}

// stand by: nothing of the lane is this pod's. The caller holds the lock.
func (l *lane) stand() {
	l.endTenure()
	l.turn++
	l.phase, l.pin, l.orphans = laneStandby, "", 0
	l.orphanAt = time.Now().Add(l.pinTime)
	l.listenAnew()
	l.d.request()
}

// pinned by the broker, under a new name. The caller holds the lock.
func (l *lane) pinned(pin string) {
	l.endTenure()
	l.turn++
	now := time.Now()
	l.phase, l.pin, l.pulled = laneSettling, pin, now
	l.settle(now.Add(l.pinTime / 2))
	l.d.log.Debug("the lane is this pod's", "lane", l.index)
}

// restart under the same pin: what has been delivered so far cannot be known. What is under way stays so. The caller holds the lock.
func (l *lane) restart(why string) {
	l.d.log.Debug("the lane begins anew", "lane", l.index, "why", why)
	l.dropQueue()
	for _, h := range l.d.held {
		h.place.consumer = 0
	}
	l.turn++
	l.phase = laneSettling
	l.settle(time.Now())
}

// settle: hear nothing until then, nor before all that the broker may still send has gone nowhere. The caller holds the lock.
func (l *lane) settle(until time.Time) {
	if end := l.d.pull.until.Add(pullMargin); end.After(until) {
		until = end
	}
	l.due = until
	l.mute()
	l.wake()
}

// activate the lane: the durable is back at what was acknowledged last. The caller holds the lock.
func (l *lane) activate(confirmed time.Time) {
	d := l.d
	if l.tenure == nil {
		l.tenure = &tenure{}
		l.tenure.ctx, l.tenure.cancel = context.WithCancel(d.sink.deliver)
	}
	l.tenure.confirmed = confirmed
	if l.served != l.pin {
		// Others may have delivered since what this pod remembers as done, and have to be followed.
		d.memory.forgetSettled()
		l.served = l.pin
	}
	l.turn++
	l.phase, l.expect, l.since = laneActive, 1, time.Now()
	d.log.Debug("the lane delivers", "lane", l.index, "pin", l.pin)
	d.pull.next = time.Time{}
	l.listenAnew()
	d.request()
}

// reconnected to the broker: messages may have been lost on the way.
func (l *lane) reconnected() {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	switch l.phase {
	case laneStandby:
		l.stand()
	case laneSettling:
		l.turn++
		l.settle(l.due)
	case laneActive:
		l.restart("the connection to the broker broke")
	}
}

// tired of a system that this pod cannot reach: another pod may. The caller holds the lock.
func (l *lane) tired(now time.Time) bool {
	patience := lanePatience * l.pinTime
	return l.d.circuit.open() && l.inflight == 0 && now.Sub(l.since) >= patience && now.Sub(l.d.circuit.since) >= patience
}

// leave the lane to another pod. The caller holds the lock.
func (l *lane) leave() {
	if t := l.tenure; t != nil && !t.over && time.Since(t.confirmed) < l.pinTime {
		l.unpin()
	}
	l.endTenure()
	for _, t := range l.former {
		t.over = true
		t.cancel()
	}
	l.turn++
	l.phase, l.pin = laneStandby, ""
	l.mute()
}

// endTenure: begin nothing more under it. What is under way may be finished for as long as the lease lasts. The caller holds the lock.
func (l *lane) endTenure() {
	l.dropQueue()
	if t := l.tenure; t != nil {
		l.former = append(l.former, t)
		l.tenure = nil
	}
}

// expire leases that were not confirmed in time. The caller holds the lock.
func (l *lane) expire(now time.Time) {
	kept := l.former[:0]
	for _, t := range l.former {
		switch {
		case t.inflight == 0:
			t.cancel()
			continue
		case !t.over && now.Sub(t.confirmed) >= l.lease():
			t.over = true
			t.cancel()
		}
		kept = append(kept, t)
	}
	clear(l.former[len(kept):])
	l.former = kept
	if t := l.tenure; t != nil && (t.inflight > 0 || len(l.d.queue) > 0) && now.Sub(t.confirmed) >= l.lease() {
		l.lapse(t)
	}
}

// lapse of the present lease. The caller holds the lock.
func (l *lane) lapse(t *tenure) {
	t.over = true
	t.cancel()
	if t == l.tenure {
		l.former = append(l.former, t)
		l.tenure = nil
		l.restart("the broker did not confirm it")
	}
}

// touch tells the broker of what is held for long. The caller holds the lock.
func (l *lane) touch(now time.Time) {
	if l.phase != laneActive {
		return
	}
	for _, h := range l.d.held {
		if h.place.tenure == l.tenure && now.Sub(h.touched) >= l.d.ackWait/3 {
			h.touched = now
			_ = l.d.sink.conn.nc.Publish(h.in.Reply, ackProgress)
		}
	}
}
