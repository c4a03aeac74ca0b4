package engine

import (
	"sort"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/sdk"
)

// The queue of a lane is in the order of the stream. A message may be begun when none of its key before it is in the queue or under way.

// nextBatch takes what one worker writes at a time, at most one message of each key. The caller holds the lock.
func (l *lane) nextBatch(batch []*held) []*held {
	d, now, size := l.d, time.Now(), 0
	clear(l.blocked)
	rest := d.queue[:0]
	for i, h := range d.queue {
		full := len(batch) == d.maxBatch || len(batch) > 0 && (h.alone || batch[0].alone || size+len(h.in.Data) > maxWriteBytes)
		if len(batch) > 0 && (len(batch) == d.maxBatch || batch[0].alone) {
			rest = append(rest, d.queue[i:]...)
			break
		}
		if full || !l.mayBegin(h, now) {
			l.blocked[h.place.key] = struct{}{}
			rest = append(rest, h)
			continue
		}
		size += len(h.in.Data)
		l.begin(h)
		batch = append(batch, h)
	}
	clear(d.queue[len(rest):])
	d.queue = rest
	return batch
}

// mayBegin, if it is the first of its key in the queue but for the blocked ones. The caller holds the lock.
func (l *lane) mayBegin(h *held, now time.Time) bool {
	_, busy := l.busy[h.place.key]
	_, blocked := l.blocked[h.place.key]
	return !busy && !blocked && !h.place.due.After(now)
}

// ready says whether there is anything to begin. The caller holds the lock.
func (l *lane) ready() bool {
	now := time.Now()
	clear(l.blocked)
	for _, h := range l.d.queue {
		if l.mayBegin(h, now) {
			return true
		}
		l.blocked[h.place.key] = struct{}{}
	}
	return false
}

// probe takes one message to try while the system is unavailable, each time another as far as the order lets it; nil when there is none. The
// caller holds the lock.
func (l *lane) probe() *held {
	now, at := time.Now(), -1
	clear(l.blocked)
	for i, h := range l.d.queue {
		if l.mayBegin(h, now) && (at < 0 || h.place.probes < l.d.queue[at].place.probes) {
			at = i
		}
		l.blocked[h.place.key] = struct{}{}
	}
	if at < 0 {
		return nil
	}
	h := l.d.queue[at]
	l.d.queue = append(l.d.queue[:at], l.d.queue[at+1:]...)
	h.place.probes++
	l.begin(h)
	return h
}

// begin to work on a message. The caller holds the lock.
func (l *lane) begin(h *held) {
	h.place.busy = true
	l.busy[h.place.key] = struct{}{}
	l.inflight++
	h.place.tenure.inflight++
}

// end the work on a message. The caller holds the lock.
func (l *lane) end(h *held) {
	if !h.place.busy {
		return
	}
	h.place.busy = false
	delete(l.busy, h.place.key)
	l.inflight--
	h.place.tenure.inflight--
	if l.inflight == 0 && (l.d.stopping || l.phase != laneActive) {
		l.wake()
	}
}

// finished tells whether the message's end counts: under a lease that has lapsed it comes again, to whoever has the lane. The caller holds
// the lock.
func (l *lane) finished(h *held) bool {
	l.end(h)
	t := h.place.tenure
	if !t.over && time.Since(t.confirmed) >= l.pinTime/2 {
		l.lapse(t) // the process was frozen
	}
	if t.over {
		l.drop(h)
		return false
	}
	return true
}

// back into its place, to be tried again at a time. The caller holds the lock.
func (l *lane) back(h *held, due time.Time) {
	d := l.d
	l.end(h)
	if d.stopping || h.place.tenure != l.tenure {
		l.drop(h)
		return
	}
	h.place.due = due
	h.forget()
	at := sort.Search(len(d.queue), func(i int) bool { return d.queue[i].seq > h.seq })
	d.queue = append(d.queue, nil)
	copy(d.queue[at+1:], d.queue[at:])
	d.queue[at] = h
	if wait := time.Until(due); wait > 0 {
		time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.startWorker()
		})
	}
}

// drop a message that this pod will not deliver: it comes again, to whoever has the lane. Only a lane that ends or begins anew may drop one,
// for others of its key wait behind it. The caller holds the lock.
func (l *lane) drop(h *held) {
	l.end(h)
	l.d.release(h)
	if h.tried > 0 {
		l.d.memory.keep(h)
	}
}

func (l *lane) dropQueue() {
	for _, h := range l.d.queue {
		l.drop(h)
	}
	l.d.queue = nil
}

// computedKey of a message; messages for which there is none are in order among themselves.
func (l *lane) computedKey(in *nats.Msg) string {
	if len(in.Data) > smallBody {
		n := min(worstDecoded(len(in.Data)), l.d.sink.bodies.total)
		if !l.d.bodies.await(l.d.sink.deliver, n) {
			return ""
		}
		defer l.d.bodies.give(n)
	}
	var m sdk.Message
	if decode(in, &m) != nil {
		return ""
	}
	key, _ := l.key.Of(&m)
	return key
}
