package amqp10

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/gate"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

// reader is the source on one connection.
type reader struct {
	*source
	settler intake.Settler[*amqp.Message]
	state   sdk.Reporter
	link    *link
	gate    *gate.Gate
	session *amqp.Session
	from    *amqp.Receiver

	messages chan *amqp.Message
	// lost is closed when nothing is received any more; cause is why, and set before.
	lost  chan struct{}
	cause error

	// open is what was last taken out of messages; what of it is settled is nil.
	open []item
	// issued is how many messages the server was allowed in all, received how many it has sent, and settled how many of them are settled.
	issued, settled int
	received        atomic.Int64
	// largest body since the credit was last reckoned anew, and how many messages were settled since.
	largest, since int
	// cleared: the gate was cleared, and no message has come since.
	cleared bool
}

// receive messages: the library hands over one at a time, and those that have arrived are to be seen together.
func (r *reader) receive(ctx context.Context) {
	defer close(r.lost)
	for {
		m, err := r.from.Receive(ctx, nil)
		if err != nil {
			if ctx.Err() != nil {
				r.cause = intake.ErrRestart
			} else {
				r.cause = addressError(r.link.endpoint, r.options.Address, err)
			}
			return
		}
		r.received.Add(1)
		select {
		case r.messages <- m:
		case <-ctx.Done(): // it goes back to its queue with the connection
			r.cause = intake.ErrRestart
			return
		}
	}
}

// credit lets the server send: so many messages as are asked for, or so many of the largest as may be held. RabbitMQ 3 may send more than it was
// allowed when credit reaches it while it sends; nothing is added then before they are settled, for the library would reckon with less than none.
func (r *reader) credit() error {
	target := max(1, r.options.Prefetch-1) // nudge has the last
	if r.largest > 0 {
		target = max(1, min(target, maxHeld/2/r.largest))
	}
	if r.since >= 4*target {
		r.since, r.largest = 0, 0
	}
	more := target - (r.issued - r.settled)
	room := target - (int(r.received.Load()) - r.settled)
	if more < max(1, target/4) || room < max(1, target/2) {
		return nil
	}
	r.issued += more
	if err := r.from.IssueCredit(uint32(more)); err != nil {
		return addressError(r.link.endpoint, r.options.Address, err)
	}
	return nil
}

// read until the session is over.
func (r *reader) read(ctx context.Context) error {
	if err := r.credit(); err != nil {
		return err
	}
	changed := r.rt.Secrets.Changed()
	ask := time.NewTimer(askEvery)
	nudge := time.NewTimer(nudgeAfter)
	defer ask.Stop()
	tight := false
	for {
		select { // first of all what ends the session: a queue may never be empty
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			if r.dialer.Outdated(r.link.proof) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		default:
		}
		var wait <-chan time.Time
		if tight {
			wait = time.After(quiet)
		}
		var err error
		select {
		case <-ctx.Done():
		case <-changed:
			if r.dialer.Outdated(r.link.proof) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		case <-r.lost:
			return r.cause
		case <-r.gate.Shut:
			tight = true
		case <-wait:
			err = r.clear()
			tight = false
		case <-nudge.C:
			err = r.nudge()
		case <-ask.C:
			if len(r.messages) == 0 && !r.mute {
				err = r.ask(ctx)
			}
			ask.Reset(askEvery)
		case m := <-r.messages:
			r.cleared = false
			r.open = r.collect(m)
			if err = r.settler.Settle(ctx, r.open); err == nil {
				err = r.credit()
			}
			ask.Reset(askEvery)
			nudge.Reset(nudgeAfter)
		}
		if err != nil {
			return err
		}
	}
}

// clear the gate, at which nothing waits to be settled. Twice in a row means that one message is larger than the gate lets pass.
func (r *reader) clear() error {
	if r.cleared {
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: address %s: a message is larger than %d bytes, and the bus takes %d: take it out of the queue",
			r.link.endpoint, r.options.Address, maxHeld, contract.MaxMessageSize))
	}
	r.cleared = true
	r.gate.Clear()
	return nil
}

// nudge the server, which sends nothing, by one more message that it may send: this tells it anew of all the credit, of which RabbitMQ 3 forgets a
// part at times.
func (r *reader) nudge() error {
	if r.issued-r.settled >= r.options.Prefetch || len(r.messages) > 0 {
		return nil
	}
	r.issued++
	if err := r.from.IssueCredit(1); err != nil {
		return addressError(r.link.endpoint, r.options.Address, err)
	}
	return nil
}

// ask the server for all that it has, which should be nothing, and let it send again: that a queue is gone RabbitMQ 3 does not say by itself.
func (r *reader) ask(ctx context.Context) error {
	inner, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := r.from.DrainCredit(inner, nil)
	switch {
	case err == nil:
		r.issued = int(r.received.Load())
		return r.credit()
	case ctx.Err() != nil:
		return ctx.Err()
	case inner.Err() != nil:
		if err := r.link.ping(ctx); err != nil {
			return err
		}
		r.mute = true // not every server knows the question, and there is no credit any more while it stands
		return intake.ErrRestart
	}
	return addressError(r.link.endpoint, r.options.Address, err)
}

// item is a delivery and its message, or why there can be none.
type item = intake.Item[*amqp.Message]

// collect what has arrived.
func (r *reader) collect(first *amqp.Message) []item {
	batch := make([]item, 0, 16)
	bytes := 0
	add := func(d *amqp.Message) {
		i := item{Delivery: d}
		i.Message, i.Err = r.receiver.message(d)
		batch = append(batch, i)
		n := size(d)
		bytes += n
		r.largest = max(r.largest, n)
	}
	add(first)
	for len(batch) < maxBatch && bytes < maxBatchBytes {
		select {
		case d := <-r.messages:
			add(d)
		default:
			return batch
		}
	}
	return batch
}

func (r *reader) recovered() {
	if r.stuck {
		r.stuck = false
		r.state.System(nil)
	}
}

// accept messages, each.
func (r *reader) accept(ctx context.Context, batch []item) error {
	ctx, cancel := intake.Outlive(ctx)
	defer cancel()
	bytes := 0
	var err error
	for i := range batch {
		d := batch[i].Delivery
		bytes += size(d)
		if err == nil {
			err = r.from.AcceptMessage(ctx, d)
		}
		batch[i] = item{}
	}
	r.gate.Settled(bytes)
	r.settled += len(batch)
	r.since += len(batch)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("the server takes no settlement in")
		}
		return addressError(r.link.endpoint, r.options.Address, err)
	}
	return nil
}

// refuse a message that the bus can never take: to the dead letters of the options, or back with the reason; where they name neither, the source
// stops at it.
func (r *reader) refuse(ctx context.Context, i *item) error {
	name := idText(propertiesOf(i.Delivery).MessageID)
	if name == "" || !binding.Clean(name) {
		name = "without id"
	}
	inner, cancel := intake.Outlive(ctx)
	defer cancel()
	switch {
	case r.options.Reject:
		if err := r.from.RejectMessage(inner, i.Delivery, refused(i.Err)); err != nil {
			return addressError(r.link.endpoint, r.options.Address, err)
		}
	case r.dead == nil:
		r.stuck = true
		return r.held(r.link, name, i.Err)
	default:
		results := r.dead.publish(inner, []publication{{r.options.DeadLetter, buried(i.Delivery, r.options.Address, i.Err)}})
		if err := results[0]; err != nil {
			r.stuck = true
			return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: message %.80s cannot be taken: %w; and neither can deadLetter: %w", r.link.endpoint, name, i.Err, err))
		}
	}
	r.rt.Log.Warn("a message was put to the dead letters of its queue", "address", r.options.Address, "message", name, "error", i.Err)
	r.recovered()
	return nil
}

// buried is the same message once more, with why it is there.
func buried(d *amqp.Message, address string, err error) *amqp.Message {
	all := make(map[string]any, len(d.ApplicationProperties)+2)
	for name, value := range d.ApplicationProperties {
		all[name] = value
	}
	all["metip-error"], all["metip-address"] = err.Error(), address
	m := &amqp.Message{
		Format: d.Format, Header: &amqp.MessageHeader{Durable: true, Priority: 4}, Properties: d.Properties, ApplicationProperties: all,
		Data: d.Data, Value: d.Value, Sequence: d.Sequence,
	}
	if d.Header != nil {
		m.Header.Priority = d.Header.Priority
	}
	if m.Value == nil && len(m.Data) == 0 && len(m.Sequence) == 0 {
		m.Value = amqp.Null{}
	}
	return m
}

// release what was received and not settled: it is nobody's fault, and is not counted as a failed delivery.
func (r *reader) release(ctx context.Context) {
	r.gate.TurnOff()
	if r.link.Alive() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if !r.mute {
		_ = r.from.DrainCredit(ctx, nil) // nothing more comes then
	}
	for i := range r.open {
		if d := r.open[i].Delivery; d != nil && r.from.ReleaseMessage(ctx, d) != nil {
			return
		}
	}
	for d := r.next(); d != nil; d = r.next() {
		if r.from.ReleaseMessage(ctx, d) != nil {
			return
		}
	}
	// Its answer says that what was settled before has arrived. RabbitMQ 3 has none to the end of a link that the library would understand.
	_ = r.session.Close(ctx)
}

// next message that was received; nil when there is none.
func (r *reader) next() *amqp.Message {
	select {
	case d := <-r.messages:
		return d
	default:
		return r.from.Prefetched()
	}
}
