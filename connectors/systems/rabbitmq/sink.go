package rabbitmq

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	// maxPublish is how many messages wait for their confirmation together.
	maxPublish = 256
	// maxIdle channels are kept.
	maxIdle = 16
)

// sink publishes over one connection.
type sink struct {
	*publisher
	raw json.RawMessage
}

// NewSink makes a sink of the JSON of the API's RabbitMQSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	d, err := newDialer(rt, &o.Connection)
	if err != nil {
		return nil, err
	}
	return &sink{newPublisher(newHolder(d, &o.Connection)), o.Publish}, nil
}

// Operation compiles what is published; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.raw
	}
	o, err := decodePublish(raw)
	if err != nil {
		return nil, err
	}
	return newOperation(s.publisher, o)
}

// Check asks the server for a sign of life. Whether an exchange is there only publishing can tell.
func (s *sink) Check(ctx context.Context) error { return check(ctx, s.holder) }

// Close the connection.
func (s *sink) Close() error {
	s.holder.Close()
	return nil
}

// MaxBatch is what waits for its confirmation together.
func (o *operation) MaxBatch() int { return maxPublish }

// Opaque: only expressions look into bodies.
func (o *operation) Opaque() bool { return o.opaque }

// Write publishes the messages in their order, and waits for the server's confirmations.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	publications := make([]publication, 0, len(batch))
	at := make([]int, 0, len(batch))
	for i, d := range batch {
		p, err := o.publication(d)
		if err != nil {
			results[i] = o.unbuilt(err)
			continue
		}
		publications, at = append(publications, p), append(at, i)
	}
	if len(publications) > 0 {
		for k, err := range o.publisher.publish(ctx, publications, o.unroutable) {
			results[at[k]] = err
		}
	}
	return results
}

func (o *operation) unbuilt(err error) error {
	return sdk.Permanent(fmt.Errorf("%s: %w", name(o.exchange), err))
}

func name(exchange string) string {
	if exchange == "" {
		return "the default exchange"
	}
	return "exchange " + exchange
}

// publisher publishes with confirms. Each call has a channel of its own while it lasts: what the server says there is said of its messages.
type publisher struct {
	holder *cluster.Holder[*link]
	mu     sync.Mutex
	idle   []*lane
}

func newPublisher(h *cluster.Holder[*link]) *publisher { return &publisher{holder: h} }

// lane is a channel in confirm mode.
type lane struct {
	*amqp.Channel
	link *link
	// returns has room for all that can be returned: the library would stop reading otherwise.
	returns chan amqp.Return
	closed  chan *amqp.Error
	// cause is why the server has closed the channel, once asked.
	cause *amqp.Error
}

// take a lane on the present connection; give it back, or drop it.
func (p *publisher) take(ctx context.Context) (*lane, error) {
	l, err := p.holder.Get(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	for len(p.idle) > 0 {
		last := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if last.link == l && !last.IsClosed() {
			p.mu.Unlock()
			return last, nil
		}
		go func() { _ = last.Close() }()
	}
	p.mu.Unlock()
	w := &lane{link: l, returns: make(chan amqp.Return, maxPublish), closed: make(chan *amqp.Error, 1)}
	err = l.within(ctx, func() (err error) {
		if w.Channel, err = l.Channel(); err != nil {
			return err
		}
		w.NotifyReturn(w.returns)
		w.NotifyClose(w.closed)
		return w.Confirm(false)
	})
	if err != nil {
		p.holder.Release(l)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unavailable(l.endpoint, err)
	}
	return w, nil
}

func (p *publisher) giveBack(w *lane, good bool) {
	p.mu.Lock()
	keep := good && !w.IsClosed() && len(p.idle) < maxIdle
	if keep {
		p.idle = append(p.idle, w)
	}
	p.mu.Unlock()
	p.holder.Release(w.link)
	if !keep && !w.IsClosed() {
		go func() { _ = w.Close() }()
	}
}

// publish messages, and answer each by position.
func (p *publisher) publish(ctx context.Context, batch []publication, unroutable string) []error {
	results := make([]error, len(batch))
	if err := ctx.Err(); err != nil {
		return fill(results, err)
	}
	w, err := p.take(ctx)
	if err != nil {
		return fill(results, err)
	}
	if reason := w.link.blocked.Load(); reason != nil {
		p.giveBack(w, true)
		return fill(results, blockedError(w.link.endpoint, *reason))
	}
	retry := w.publish(ctx, batch, unroutable, results)
	p.giveBack(w, ctx.Err() == nil)
	if retry && len(batch) > 1 { // the server has closed the channel over one of them: each by itself
		for i := range batch {
			if results[i] != nil && ctx.Err() == nil {
				results[i] = p.publish(ctx, batch[i:i+1], unroutable)[0]
			}
		}
	}
	return results
}

func fill(results []error, err error) []error {
	for i := range results {
		results[i] = err
	}
	return results
}

// publish over this channel. retry says that the server has closed it for what one of the messages is.
func (w *lane) publish(ctx context.Context, batch []publication, unroutable string, results []error) (retry bool) {
	confirms := make([]*amqp.DeferredConfirmation, len(batch))
	err := w.link.within(ctx, func() (err error) {
		for i := range batch {
			b := &batch[i]
			if confirms[i], err = w.PublishWithDeferredConfirm(b.exchange, b.key, unroutable != unroutableIgnore, false, b.Publishing); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	})
	returned := map[string]bool{}
	for i, c := range confirms {
		acked := false
		if c != nil {
			select {
			case <-c.Done():
				acked = c.Acked()
			case <-ctx.Done():
				results[i] = ctx.Err()
				continue
			}
		}
		if !acked {
			var alone bool
			results[i], alone = w.failure(ctx, batch, err)
			retry = retry || alone
			continue
		}
		w.drain(returned) // what is returned is returned before it is confirmed
		if returned[batch[i].MessageId] {
			results[i] = w.unroutable(&batch[i], unroutable)
		}
	}
	return retry
}

// drain what the server has returned, by message id.
func (w *lane) drain(returned map[string]bool) {
	for {
		select {
		case r, ok := <-w.returns:
			if !ok {
				return
			}
			returned[r.MessageId] = true
		default:
			return
		}
	}
}

func (w *lane) unroutable(p *publication, what string) error {
	err := fmt.Errorf("%s: %s leads a message with routing key %q to no queue", w.link.endpoint, name(p.exchange), p.key)
	if what == unroutableRetry {
		return err
	}
	return sdk.Permanent(err)
}

// failure of a message that was not confirmed. alone says that each is to be tried by itself.
func (w *lane) failure(ctx context.Context, batch []publication, err error) (_ error, alone bool) {
	if ctx.Err() != nil {
		return ctx.Err(), false
	}
	if !w.IsClosed() && err == nil {
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %s: the server refuses messages: a queue is full and rejects what is published (x-overflow), or has failed",
			w.link.endpoint, name(batch[0].exchange))), false
	}
	answer := w.why()
	switch {
	case answer == nil || !answer.Server:
		if lost := w.link.Alive(); lost != nil {
			return lost, false
		}
		if err == nil {
			err = amqp.ErrClosed
		}
		return unavailable(w.link.endpoint, err), false
	case slices.Contains([]int{amqp.PreconditionFailed, amqp.ContentTooLarge, amqp.SyntaxError, amqp.NotImplemented}, answer.Code):
		if len(batch) > 1 {
			return fmt.Errorf("%s: %s", w.link.endpoint, describe(answer)), true
		}
		return sdk.Permanent(fmt.Errorf("%s: %s: %s", w.link.endpoint, name(batch[0].exchange), describe(answer))), false
	case answer.Code == amqp.ConnectionForced:
		return unavailable(w.link.endpoint, answer), false
	}
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %s: %s", w.link.endpoint, name(batch[0].exchange), describe(answer))), false
}

// why the channel is closed: the reason may come a moment after the fact.
func (w *lane) why() *amqp.Error {
	if w.cause == nil {
		select {
		case w.cause = <-w.closed:
		case <-time.After(time.Second):
		}
	}
	return w.cause
}
