package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/gate"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const consumerTag = "metip"

// reader is the source on one connection.
type reader struct {
	*source
	settler intake.Settler[amqp.Delivery]
	state   sdk.Reporter
	link    *link
	gate    *gate.Gate
	channel *amqp.Channel
	closed  chan *amqp.Error
	worked  bool
	// since is how many messages were settled since the prefetch was chosen.
	since int
}

// consume until the consumer is to be made anew, with another prefetch (nil), or the session is over.
func (r *reader) consume(ctx context.Context) error {
	r.since = 0
	prefetch := r.prefetch
	var deliveries <-chan amqp.Delivery
	opening, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	err := r.link.within(opening, func() (err error) {
		if err = r.channel.Qos(prefetch, 0, false); err == nil {
			deliveries, err = r.channel.Consume(r.options.Queue, consumerTag, false, false, false, false, nil)
		}
		return err
	})
	if err != nil {
		return r.queueError(r.link, err)
	}
	r.gate.TurnOn()
	queue := make(chan amqp.Delivery, prefetch)
	go func() { // the library hands over one at a time: those that have arrived are to be seen together
		defer close(queue)
		for d := range deliveries {
			queue <- d
		}
	}()
	if !r.stuck {
		r.state.System(nil)
	}
	r.worked = true
	err = r.read(ctx, queue, prefetch)
	if err == nil {
		return r.cancel(ctx, queue)
	}
	go func() { // the rest goes back to its queue with the connection
		for range queue {
		}
	}()
	return err
}

// cancel the consumer, and settle what it was sent before.
func (r *reader) cancel(ctx context.Context, queue <-chan amqp.Delivery) error {
	r.gate.TurnOff()
	cancelled := make(chan error, 1)
	go func() { cancelled <- r.channel.Cancel(consumerTag, false) }()
	for d := range queue {
		if err := r.settler.Settle(ctx, r.collect(d, queue)); err != nil {
			go func() {
				for range queue {
				}
			}()
			return err
		}
	}
	if err := <-cancelled; err != nil {
		return r.queueError(r.link, err)
	}
	return nil
}

// read until there is another prefetch to be had (nil), or the session is over.
func (r *reader) read(ctx context.Context, queue <-chan amqp.Delivery, prefetch int) error {
	changed := r.rt.Secrets.Changed()
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
		select {
		case <-ctx.Done():
		case <-changed:
			if r.dialer.Outdated(r.link.proof) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		case <-r.gate.Shut:
			tight = true
		case <-wait:
			r.gate.Clear()
			tight = false
		case d, ok := <-queue:
			if !ok {
				return r.ended()
			}
			if err := r.settler.Settle(ctx, r.collect(d, queue)); err != nil {
				return err
			}
			select {
			case <-r.gate.Shut:
				tight = true
			default:
			}
			if r.adapt(prefetch, tight) {
				return nil
			}
		}
	}
}

// adapt tells whether another prefetch is worth a new consumer.
func (r *reader) adapt(prefetch int, tight bool) bool {
	if !tight && (prefetch == r.options.Prefetch || r.since < 4*prefetch) {
		return false
	}
	r.since = 0
	r.resize(tight)
	return r.prefetch != prefetch
}

// ended says why there are no deliveries any more.
func (r *reader) ended() error {
	select {
	case err := <-r.closed:
		if err != nil {
			return r.queueError(r.link, err)
		}
	case <-r.link.lost:
		return unavailable(r.link.endpoint, r.link.cause)
	case <-time.After(quiet):
	}
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: queue %s: the server has ended the subscription: the queue was deleted, or has moved", r.link.endpoint, r.options.Queue))
}

// item is a delivery and its message, or why there can be none.
type item = intake.Item[amqp.Delivery]

// collect what has arrived.
func (r *reader) collect(first amqp.Delivery, queue <-chan amqp.Delivery) []item {
	batch := make([]item, 0, 16)
	bytes := 0
	add := func(d amqp.Delivery) {
		i := item{Delivery: d}
		i.Message, i.Err = r.receiver.message(&d)
		batch = append(batch, i)
		bytes += len(d.Body)
		r.largest = max(r.largest, len(d.Body))
	}
	add(first)
	for len(batch) < maxBatch && bytes < maxBatchBytes {
		select {
		case d, ok := <-queue:
			if !ok {
				return batch
			}
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

// acknowledge deliveries, and those before them, which are acknowledged already.
func (r *reader) acknowledge(batch []item) error {
	last := batch[len(batch)-1].Delivery.DeliveryTag
	err := r.channel.Ack(last, true)
	bytes := 0
	for i := range batch {
		bytes += len(batch[i].Delivery.Body)
		batch[i] = item{}
	}
	r.gate.Settled(bytes)
	r.since += len(batch)
	if err != nil {
		select {
		case answer := <-r.closed:
			if answer != nil {
				err = answer
			}
		default:
		}
		return r.queueError(r.link, err)
	}
	return nil
}

// refuse a message that the bus can never take: to the dead letters of the options or, where they name none, the source stops at it.
func (r *reader) refuse(ctx context.Context, i *item) error {
	d := &i.Delivery
	name := d.MessageId
	if name == "" || !binding.Clean(name) {
		name = "without id"
	}
	if r.dead == nil {
		r.stuck = true
		return intake.HeldError{Err: sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf(
			"%s: queue %s: message %.80s cannot be taken, and the source waits at it: %w (take it out of the queue, or set deadLetter)", r.link.endpoint, r.options.Queue, name, i.Err))}
	}
	p := publishingOf(d)
	p.Headers["metip-error"] = i.Err.Error()
	p.Headers["metip-queue"] = r.options.Queue
	inner, cancel := intake.Outlive(ctx)
	defer cancel()
	o := r.options.DeadLetter
	results := r.dead.publish(inner, []publication{{Publishing: p, exchange: o.Exchange, key: o.RoutingKey}}, unroutableRetry)
	if err := results[0]; err != nil {
		r.stuck = true
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: message %.80s cannot be taken: %w; and neither can deadLetter: %w", r.link.endpoint, name, i.Err, err))
	}
	r.rt.Log.Warn("a message was put to the dead letters of its queue", "queue", r.options.Queue, "message", name, "error", i.Err)
	r.recovered()
	return nil
}

// publishingOf a delivery: the same message once more.
func publishingOf(d *amqp.Delivery) amqp.Publishing {
	headers := make(amqp.Table, len(d.Headers)+2)
	for name, value := range d.Headers {
		headers[name] = value
	}
	return amqp.Publishing{
		Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp.Persistent, Priority: d.Priority,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body,
	}
}
