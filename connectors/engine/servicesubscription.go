package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
)

// readyPatience is how long a pod is not ready because the broker is away: it must not take over from one that is being answered, and
// must not hold up for ever what repairs it.
const readyPatience = 10 * time.Second

// ready once requests can come.
func (r *serviceRunner) ready(ctx context.Context, ready func()) {
	limited, stop := context.WithTimeout(ctx, readyPatience)
	defer stop()
	for limited.Err() == nil {
		if r.conn.isUp() && r.conn.nc.FlushWithContext(limited) == nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limited.Done():
		}
	}
	if ctx.Err() == nil {
		ready()
	}
}

// subscription to requests. closed when it has ended, and the last request that came by it was taken.
type subscription struct {
	*nats.Subscription
	closed chan struct{}
}

// subscribe to requests, unless that is done or the pod ends.
func (r *serviceRunner) subscribe() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.stopping:
		return nil
	default:
	}
	if r.requestsSub != nil {
		return nil
	}
	c := r.config.Connector
	subject := contract.ServiceSubject(c.Namespace, c.Integration, c.Name)
	s := &subscription{closed: make(chan struct{})}
	var err error
	if s.Subscription, err = r.conn.nc.QueueSubscribe(subject, subject, r.take); err != nil {
		return fmt.Errorf("subscribe to requests: %w", err)
	}
	s.SetClosedHandler(func(string) { close(s.closed) })
	r.requestsSub = s
	return nil
}

// unsubscribe from requests. Those that the broker has sent already are still taken, as long as limit is open; while it is away there are none.
func (r *serviceRunner) unsubscribe(limit <-chan struct{}) {
	r.mu.Lock()
	s := r.requestsSub
	r.requestsSub = nil
	r.mu.Unlock()
	if s == nil || s.Drain() != nil || !r.conn.isUp() {
		return
	}
	select {
	case <-s.closed:
	case <-limit:
	}
}

// settle before the connection is changed: other pods take the requests, and what this one has is answered first.
func (r *serviceRunner) settle() {
	limit := make(chan struct{})
	timer := time.AfterFunc(settlePatience, func() { close(limit) })
	defer timer.Stop()
	r.unsubscribe(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for r.inFlight.Load() > 0 {
		select {
		case <-tick.C:
		case <-limit:
			return
		}
	}
	_ = r.conn.nc.FlushTimeout(settlePatience)
}

// register how a call is ended by its caller; nil ends that.
func (r *serviceRunner) register(reply string, cancel context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cancel == nil {
		delete(r.byReply, reply)
	} else {
		r.byReply[reply] = cancel
	}
}

// lost connection: what came over it cannot be answered any more, for the broker forgets what a user was asked when its connection ends.
func (r *serviceRunner) lost() {
	r.generation.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cancel := range r.byReply {
		cancel(errLost)
	}
}

// cancel the call whose answer nobody waits for any more.
func (r *serviceRunner) cancel(reply string) {
	r.mu.Lock()
	cancel := r.byReply[reply]
	r.mu.Unlock()
	if cancel != nil {
		cancel(errCallCancelled)
	}
}
