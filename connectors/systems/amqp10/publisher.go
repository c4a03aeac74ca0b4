package amqp10

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	// maxSend is how many messages wait for their outcome together.
	maxSend = 256
	// maxLanes is how many addresses are sent to together, and maxIdle how many links are kept for later.
	maxLanes = 16
	maxIdle  = 32
)

// publisher sends unsettled messages. Each call has links of its own while it lasts, each in a session of its own: what the server says there is
// said of its messages.
type publisher struct {
	holder *cluster.Holder[*link]
	mu     sync.Mutex
	idle   []*lane // the one that was used last is the last
}

func newPublisher(d *cluster.Dialer, o *connectionOptions) *publisher {
	return &publisher{holder: cluster.NewHolder(d, func(ctx context.Context) (*link, error) { return dial(ctx, d, o, nil) })}
}

func (p *publisher) close() { p.holder.Close() }

// lane is a link to an address.
type lane struct {
	*amqp.Sender
	session *amqp.Session
	link    *link
	address string
	broken  bool
}

// drop the lane, with its session.
func (w *lane) drop(ctx context.Context) {
	if w.link.Alive() == nil {
		w.link.leave(ctx, w.session)
	}
}

// attach a link to an address.
func attach(ctx context.Context, l *link, address string) (*lane, error) {
	session, err := l.NewSession(ctx, nil)
	if err == nil {
		var s *amqp.Sender
		if s, err = session.NewSender(ctx, address, &amqp.SenderOptions{SettlementMode: &unsettled}); err == nil {
			return &lane{Sender: s, session: session, link: l, address: address}, nil
		}
		l.leave(ctx, session)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, addressError(l.endpoint, address, err)
}

// take a lane to an address on a connection; give it back.
func (p *publisher) take(ctx context.Context, l *link, address string) (*lane, error) {
	p.mu.Lock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		w := p.idle[i]
		switch {
		case w.link != l:
			p.idle = slices.Delete(p.idle, i, i+1)
		case w.address == address:
			p.idle = slices.Delete(p.idle, i, i+1)
			p.mu.Unlock()
			return w, nil
		}
	}
	p.mu.Unlock()
	return attach(ctx, l, address)
}

func (p *publisher) giveBack(ctx context.Context, w *lane) {
	if ctx.Err() != nil || w.broken || w.link.Alive() != nil {
		w.drop(ctx)
		return
	}
	p.mu.Lock()
	var former *lane
	if p.idle = append(p.idle, w); len(p.idle) > maxIdle {
		former = p.idle[0]
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.mu.Unlock()
	if former != nil {
		former.drop(ctx)
	}
}

// publish messages, and answer each by position.
func (p *publisher) publish(ctx context.Context, batch []publication) []error {
	results := make([]error, len(batch))
	if len(batch) == 0 {
		return results
	}
	if err := ctx.Err(); err != nil {
		return fill(results, err)
	}
	l, err := p.holder.Get(ctx)
	if err != nil {
		return fill(results, err)
	}
	defer p.holder.Release(l)
	for from := 0; from < len(batch); {
		to := wave(batch[from:]) + from
		alone := p.send(ctx, l, batch[from:to], results[from:to])
		for i := range alone { // the server has ended a link over one of them: each by itself
			if at := from + alone[i]; ctx.Err() == nil {
				p.send(ctx, l, batch[at:at+1], results[at:at+1])
			}
		}
		from = to
	}
	return results
}

// wave is how many messages are sent before the outcomes are waited for: those of maxLanes addresses.
func wave(batch []publication) int {
	addresses := map[string]bool{}
	for i := range batch {
		if !addresses[batch[i].address] && len(addresses) == maxLanes {
			return i
		}
		addresses[batch[i].address] = true
	}
	return len(batch)
}

func fill(results []error, err error) []error {
	for i := range results {
		results[i] = err
	}
	return results
}

// send messages and wait for their outcomes. alone are those that are to be sent again, each by itself.
func (p *publisher) send(ctx context.Context, l *link, batch []publication, results []error) (alone []int) {
	lanes := make(map[string]*lane, 1)
	failed := map[string]error{}
	receipts := make([]amqp.SendReceipt, len(batch))
	sent := make([]*lane, len(batch))
	for i := range batch {
		b := &batch[i]
		w := lanes[b.address]
		err := failed[b.address]
		if w == nil && err == nil {
			if w, err = p.take(ctx, l, b.address); err == nil {
				lanes[b.address] = w
			} else {
				failed[b.address] = err
			}
		}
		if err == nil {
			receipts[i], err = w.SendWithReceipt(ctx, b.Message, nil)
			var again bool
			if err, again = w.failure(ctx, err, len(batch) > 1); again {
				alone = append(alone, i)
			}
		}
		if results[i] = err; err == nil {
			sent[i] = w
		}
	}
	for i, w := range sent {
		if w == nil {
			continue
		}
		state, err := receipts[i].Wait(ctx)
		if err == nil {
			results[i] = w.outcome(state)
			continue
		}
		var again bool
		if results[i], again = w.failure(ctx, err, len(batch) > 1); again {
			alone = append(alone, i)
		}
	}
	for _, w := range lanes {
		p.giveBack(ctx, w)
	}
	slices.Sort(alone)
	return alone
}

// failure of a message that has no outcome; nil stays nil. again says that it is to be sent by itself: many were sent, and the server does not say
// which of them it means.
func (w *lane) failure(ctx context.Context, err error, many bool) (_ error, again bool) {
	if err == nil {
		return nil, false
	}
	if ctx.Err() != nil {
		return ctx.Err(), false
	}
	var (
		answer *amqp.Error
		ended  *amqp.LinkError
		gone   *amqp.SessionError
	)
	if most := w.MaxMessageSize(); errors.As(err, &answer) && !errors.As(err, &ended) && !errors.As(err, &gone) && answer.Condition == amqp.ErrCondMessageSizeExceeded {
		return sdk.Permanent(fmt.Errorf("%s: address %s: the message is larger than the %d bytes that the server takes", w.link.endpoint, w.address, most)), false
	}
	w.broken = true
	answer = remote(err)
	if answer != nil && slices.Contains(messageConditions, answer.Condition) {
		err = fmt.Errorf("%s: address %s: %s", w.link.endpoint, w.address, describe(err))
		if many {
			return err, true
		}
		return sdk.Permanent(err), false
	}
	return addressError(w.link.endpoint, w.address, err), false
}

// messageConditions are those that a server ends a link with because of a message.
var messageConditions = []amqp.ErrCond{
	amqp.ErrCondMessageSizeExceeded, amqp.ErrCondPreconditionFailed, amqp.ErrCondInvalidField, amqp.ErrCondDecodeError, amqp.ErrCondNotImplemented,
}

// outcome of a message.
func (w *lane) outcome(state amqp.DeliveryState) error {
	switch s := state.(type) {
	case *amqp.StateAccepted:
		return nil
	case *amqp.StateRejected:
		return w.rejected(s.Error)
	case *amqp.StateReleased:
		return fmt.Errorf("%s: address %s: the server has released the message: nothing takes it there at present", w.link.endpoint, w.address)
	case *amqp.StateModified:
		return fmt.Errorf("%s: address %s: the server has given the message back (modified)", w.link.endpoint, w.address)
	}
	return fmt.Errorf("%s: address %s: the server says %T of the message, and not whether it has it", w.link.endpoint, w.address, state)
}

// rejected by the server: for ever, unless it says that it is itself that cannot.
func (w *lane) rejected(answer *amqp.Error) error {
	if answer == nil {
		return sdk.Permanent(fmt.Errorf("%s: address %s: the server rejects the message without saying why", w.link.endpoint, w.address))
	}
	err := fmt.Errorf("%s: address %s: the server rejects the message: %s", w.link.endpoint, w.address, describe(answer))
	switch answer.Condition {
	case amqp.ErrCondUnauthorizedAccess:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, err)
	case amqp.ErrCondResourceLimitExceeded, amqp.ErrCondInternalError, amqp.ErrCondResourceLocked, "com.microsoft:server-busy", "com.microsoft:timeout":
		return err
	}
	return sdk.Permanent(err)
}

// own makes it a message's own error that there is nothing at its address: where each message says its own, the others may go on.
func own(err error) error {
	var u *sdk.UnavailableError
	if !errors.As(err, &u) {
		return err
	}
	if answer := remote(u.Err); answer != nil && (answer.Condition == amqp.ErrCondNotFound || answer.Condition == amqp.ErrCondResourceDeleted) {
		return sdk.Permanent(u.Err)
	}
	return err
}
