package engine

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
)

// Attempts of a throttled destination are spaced evenly. What counts is what reaches the system: a message that a filter lets go costs nothing,
// and one that is tried again costs again. So that the rate holds however many pods there are, the destination's durable consumer is read by
// one of them at a time, the one that the broker has pinned; lanes of an ordered destination are so anyway, and share the rate.

// throttleSlack is how much of a rate may be made up for at once: timers are late, and batches are written at a time.
const throttleSlack = 50 * time.Millisecond

// limiter grants attempts. A destination's lock guards it.
type limiter struct {
	every time.Duration
	// next is when the next attempt would be due if all were spaced evenly.
	next time.Time
}

// limitersOf a destination; share is how many others have the same rate together with it, itself included.
func limitersOf(r *contract.Route, share int) []limiter {
	var out []limiter
	for _, s := range r.Steps {
		if t := s.Throttle; t != nil {
			out = append(out, limiter{every: max(1, time.Duration(t.Per)*time.Duration(max(1, share))/time.Duration(t.Rate))})
		}
	}
	return out
}

// wait is how long it is until an attempt may be made.
func (l *limiter) wait(now time.Time) time.Duration {
	if now = now.Add(throttleSlack); l.next.After(now) {
		return l.next.Sub(now)
	}
	return 0
}

func (l *limiter) take(now time.Time) {
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(l.every)
}

// throttle a batch that was taken from the queue: what may not be attempted now goes back to its place. The caller holds the lock.
func (d *destination) throttle(batch []*held) []*held {
	if len(d.limits) == 0 {
		return batch
	}
	granted := d.grant(len(batch))
	rest := slices.Clone(batch[granted:])
	if d.lane == nil {
		d.queue = append(rest, d.queue...)
		return batch[:granted]
	}
	for _, h := range rest {
		d.lane.back(h, time.Time{})
	}
	return batch[:granted]
}

// grant at most n attempts now. Where it is none, whoever waits is woken when it is time. The caller holds the lock.
func (d *destination) grant(n int) int {
	if len(d.limits) == 0 {
		return n
	}
	now := time.Now()
	for granted := range n {
		for i := range d.limits {
			wait := d.limits[i].wait(now)
			if wait == 0 {
				continue
			}
			if granted == 0 {
				d.shut(wait)
			}
			return granted
		}
		for i := range d.limits {
			d.limits[i].take(now)
		}
	}
	return n
}

// shut the gate for a while. The caller holds the lock.
func (d *destination) shut(wait time.Duration) {
	if d.gated {
		return
	}
	d.gated = true
	time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gated = false
		d.startWorker()
	})
}

// refund attempts that were granted and not made. The caller holds the lock.
func (d *destination) refund(n int) {
	if n <= 0 || len(d.limits) == 0 {
		return
	}
	for i := range d.limits {
		d.limits[i].next = d.limits[i].next.Add(-time.Duration(n) * d.limits[i].every)
	}
	d.gated = false
}

// unused attempts of a batch are given back, and whoever waits may make them.
func (d *destination) unused(n int) {
	if n == 0 || len(d.limits) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refund(n)
	if !d.circuit.open() {
		d.startWorker()
	}
}

// pin of a durable consumer that one pod reads at a time. Its destination's lock guards it.
type pin struct {
	// wanted: the durable is one of those.
	wanted bool
	// id is the broker's name for this pod while it is the one.
	id string
	// pulled is when the broker last heard that it wants to stay so; silent is an inbox that nobody reads.
	pulled time.Time
	silent string
}

// request is the end of a pull request, from the comma on.
func (p *pin) request(body []byte, now time.Time) []byte {
	if !p.wanted {
		return body
	}
	p.pulled = now
	body = append(body, `,"group":"`+contract.LaneGroup+`"`...)
	if p.id != "" {
		body = append(body, `,"id":"`...)
		body = append(body, p.id...)
		body = append(body, '"')
	}
	return body
}

// taken: a message has come, which says who is pinned.
func (p *pin) taken(in *nats.Msg) {
	if p.wanted {
		p.id = first(in.Header, headerPinID)
	}
}

// keep the pin while there is no room for messages: a pull that none fits says no more than that the pod is there. The caller holds the lock.
func (d *destination) keepPin(now time.Time) {
	p := &d.pull.pin
	if p.id == "" || d.stopping || now.Sub(p.pulled) < contract.LanePinTime/4 {
		return
	}
	if p.silent == "" {
		p.silent = d.sink.conn.nc.NewInbox()
	}
	body := p.request([]byte(`{"batch":1,"expires":1000000000,"max_bytes":1`), now)
	_ = d.sink.conn.nc.PublishRequest(d.pull.subject, p.silent, append(body, '}'))
}

// unpinned: another pod reads the durable now, and gets what was not begun here. The caller holds the lock.
func (d *destination) unpinned() {
	d.pull.pin.id = ""
	for _, h := range d.queue {
		d.giveBack(h)
	}
	d.queue = nil
}
