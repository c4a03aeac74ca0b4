package engine

import (
	"errors"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// How an open circuit finds out whether the system works again.
const (
	firstProbe = 200 * time.Millisecond
	lastProbe  = 5 * time.Second
	// checksBeforeTry is how many failed checks come before a message is tried all the same: a check may be wrong, a write is not.
	checksBeforeTry = 4
)

// circuit of one destination. While it is open nothing is pulled (but for one message, where none is held), and held messages wait. A
// prober asks the system by Check, then tries one message at a time, each time another, until one is answered. It is guarded by its
// destination's lock.
type circuit struct {
	destination *destination
	problem
	// successes counts what the system answered.
	successes int64
	probing   bool
	poke      chan struct{}
	// version of the Secrets at the last failure.
	version uint64
}

func (c *circuit) open() bool { return c.err != nil }

// fail opens the circuit, or keeps it open for another reason.
func (c *circuit) fail(err error) {
	d := c.destination
	c.version = d.sink.secrets.Version()
	if c.set(reasonOf(err), err) {
		d.log.Warn("the system is unavailable", "error", err)
		d.sink.changed()
	}
	if !c.probing && !d.stopping {
		c.probing = true
		c.poke = make(chan struct{}, 1)
		d.workers++
		go d.probe(c.poke)
	}
}

// success closes the circuit: the system answered a message.
func (c *circuit) success() {
	c.successes++
	if c.err != nil {
		c.close()
	}
}

// close the circuit and go on.
func (c *circuit) close() {
	d := c.destination
	c.set("", nil)
	d.log.Info("the system is available again")
	d.sink.changed()
	c.wake()
	d.startWorker()
	d.request()
}

// wake the prober.
func (c *circuit) wake() {
	if c.poke != nil {
		select {
		case c.poke <- struct{}{}:
		default:
		}
	}
}

// lastProbe is the longest time between two probes. What publishes into a full bus asks oftener than sources may: see fullSettle.
func (d *destination) lastProbe() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if isBus(d.circuit.err) {
		return fullProbe
	}
	return lastProbe
}

// probe until the circuit is closed. It counts as a worker.
func (d *destination) probe(poke <-chan struct{}) {
	wait, checks, idle := firstProbe, 0, false
	for {
		timer := time.NewTimer(wait)
		secrets := d.sink.secrets.Changed()
		select {
		case <-timer.C:
			wait = min(2*wait, d.lastProbe())
		case <-secrets:
			wait = firstProbe
		case <-d.sink.deliver.Done():
		case <-poke:
			// A message has come, the circuit was closed, or the pod stops. A message waits for the time of the next probe, but for one that
			// comes in place of one that never reached the system.
			if !d.woken(timer.C, idle) {
				timer.Stop()
				d.endProbe()
				return
			}
			wait = min(2*wait, d.lastProbe())
		}
		timer.Stop()
		var over bool
		if over, idle = d.probed(&checks); over {
			d.endProbe()
			return
		}
	}
}

// woken waits out a timer that a message has interrupted. It is false when there is nothing left to probe.
func (d *destination) woken(timer <-chan time.Time, now bool) bool {
	d.mu.Lock()
	done := d.stopping || !d.circuit.open()
	d.mu.Unlock()
	if done || now {
		return !done
	}
	select {
	case <-timer:
	case <-d.sink.deliver.Done():
	}
	return true
}

func (d *destination) endProbe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.circuit.probing = false
	d.workers--
	d.idle.Broadcast()
	// It may have opened again in between.
	if d.circuit.open() && !d.stopping {
		d.circuit.fail(d.circuit.err)
	}
	d.startWorker()
}

// probed asks the system, and tries a message. over: probing is over. idle: no message was there to try, for those that were had been filtered
// or had expired, so that the next one need not wait.
func (d *destination) probed(checks *int) (over, idle bool) {
	d.mu.Lock()
	over = d.stopping || !d.circuit.open()
	disproved := !isEnrichment(d.circuit.err) && (isConnection(d.circuit.err) || d.circuit.version != d.sink.secrets.Version())
	d.mu.Unlock()
	if over || d.sink.deliver.Err() != nil {
		return true, false
	}
	err := d.sink.check(d.sink.deliver)
	d.mu.Lock()
	if err != nil {
		d.circuit.fail(err)
		if *checks++; *checks%checksBeforeTry != 0 {
			d.mu.Unlock()
			return false, false
		}
	} else {
		*checks = 0
		if disproved && len(d.queue) == 0 {
			// Nothing is there to try. What failed was the connection, which the check has made, or the credentials, which are others now.
			d.circuit.close()
			d.mu.Unlock()
			return true, false
		}
	}
	d.mu.Unlock()
	return d.try()
}

// try one message after the other until one has reached the system. When it fails again it goes to the end of the queue, so that the next
// probe tries another one.
func (d *destination) try() (over, idle bool) {
	asked := d.asked.Load()
	for {
		d.mu.Lock()
		if d.stopping || !d.circuit.open() {
			d.mu.Unlock()
			return true, false
		}
		var h *held
		if d.asked.Load() == asked && !d.gated && d.grant(1) == 1 {
			if h = d.pick(); h == nil {
				d.refund(1)
			}
		}
		if h == nil {
			// Nothing that the pod holds, or nothing more for now.
			if len(d.queue) == 0 {
				d.request()
			}
			d.mu.Unlock()
			return false, idle && d.asked.Load() == asked
		}
		d.mu.Unlock()
		d.process([]*held{h})
		idle = true
	}
}

// pick a message to try from the queue; nil when there is none. The caller holds the lock.
func (d *destination) pick() *held {
	if d.lane != nil {
		return d.lane.probe()
	}
	if len(d.queue) == 0 {
		return nil
	}
	h := d.queue[0]
	d.queue = append(d.queue[:0], d.queue[1:]...)
	return h
}

// isConnection tells failures that a successful Check disproves.
func isConnection(err error) bool {
	var u *sdk.UnavailableError
	if !errors.As(err, &u) {
		return false
	}
	switch u.Reason {
	case contract.ReasonConnectionFailed, contract.ReasonCertificateInvalid, contract.ReasonCredentialsMissing:
		return true
	}
	return false
}
