package mqtt

import (
	"context"
	"fmt"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/intake"
	"github.com/metip/metip/connectors/systems/internal/oneline"
)

// item is a packet and its message, or why there can be none.
type item = intake.Item[*packet]

// work until the session is over.
func (r *reader) work(ctx context.Context) error {
	settler := intake.Settler[*packet]{
		Bus: r.bus, Lost: r.lost, Cause: func() error { return r.cause }, Refuse: r.refuse, Acknowledge: r.acknowledge, Recovered: r.recovered,
	}
	subscribed := r.subscribed
	changed := r.rt.Secrets.Changed()
	for {
		select { // first of all what ends the session: topics may never be silent
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			if r.dialer.outdated(r.link) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			if r.dialer.outdated(r.link) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		case <-r.lost:
			return r.cause
		case <-subscribed:
			subscribed, r.good, r.known = nil, true, true
			if !r.stuck {
				r.state.System(nil)
			}
		case p := <-r.messages:
			if err := settler.Settle(ctx, r.collect(p)); err != nil {
				return err
			}
		}
	}
}

// collect what has arrived. A broker may send a few more than it was told, which wait.
func (r *reader) collect(first *packet) []item {
	batch := make([]item, 0, 16)
	bytes := 0
	add := func(p *packet) {
		i := item{Delivery: p}
		i.Message, i.Err = r.receiver.message(p)
		batch = append(batch, i)
		bytes += len(p.body)
	}
	add(first)
	for len(batch) < min(maxBatch, r.options.Prefetch) && bytes < maxBatchBytes {
		select {
		case p := <-r.messages:
			add(p)
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

// acknowledge messages, each, in the order in which they came, as the protocol asks.
func (r *reader) acknowledge(batch []item) error {
	out := make([]byte, 0, 4*len(batch))
	bytes := 0
	r.mu.Lock()
	for i := range batch {
		p := batch[i].Delivery
		bytes += len(p.body)
		switch p.qos() {
		case 1:
			out = appendAck(out, kindPuback, p.id)
		case 2:
			r.released[p.id] = true
			out = appendAck(out, kindPubrec, p.id)
		}
		batch[i] = item{}
	}
	r.mu.Unlock()
	err := r.link.write(out)
	r.settled(bytes)
	if err != nil {
		return unavailable(r.link.endpoint, err)
	}
	return nil
}

// refuse a message that the bus can never take: to the dead letters of the options or, where they name none, the source stops at it.
func (r *reader) refuse(ctx context.Context, i *item) error {
	topic := i.Delivery.topic
	if !binding.Clean(topic) {
		topic = "without a name"
	}
	where := fmt.Sprintf("%s: client %s: a message of topic %.200s", r.link.endpoint, r.client, topic)
	if r.options.DeadLetter == "" || i.Delivery.skipped > 0 {
		r.stuck = true
		return intake.HeldError{Err: sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s cannot be taken, and the source waits at it: %w (set deadLetter, or end the session)", where, i.Err))}
	}
	if err := r.bury(ctx, i); err != nil {
		r.stuck = true
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s cannot be taken: %w; and neither can deadLetter: %w", where, i.Err, err))
	}
	r.rt.Log.Warn("a message was put to the dead letters", "topic", topic, "error", i.Err)
	r.recovered()
	return nil
}

// bury a message in the dead letters, over a connection of its own, and wait until the broker has it.
func (r *reader) bury(ctx context.Context, i *item) error {
	ctx, cancel := intake.Outlive(ctx)
	defer cancel()
	w, err := openSender(ctx, r.dialer)
	if err != nil {
		return err
	}
	defer w.link.leave()
	p := publication{topic: r.options.DeadLetter, qos: 1, body: i.Delivery.body}
	p.contentType, p.responseTopic, p.correlation = i.Delivery.contentType, i.Delivery.responseTopic, i.Delivery.correlation
	for _, u := range i.Delivery.user {
		if u.name != "metip-error" && u.name != "metip-topic" {
			p.user = append(p.user, u)
		}
	}
	p.user = append(p.user, pair{"metip-error", oneline.Excerpt(i.Err.Error(), 500)}, pair{"metip-topic", i.Delivery.topic})
	return w.publish(ctx, []*publication{&p})[0]
}
