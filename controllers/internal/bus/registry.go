package bus

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
)

// Registry holds the sessions of all Brokers. The Broker controller sets and removes them; everybody else looks them up.
type Registry struct {
	log        logr.Logger
	connectors *notifier
	brokers    *notifier

	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	sessions map[types.NamespacedName]registered
}

type registered struct {
	session     *session
	fingerprint string
}

var _ Sessions = (*Registry)(nil)

// NewRegistry is empty. Its sessions last until ctx ends or Close is called.
func NewRegistry(ctx context.Context, log logr.Logger) *Registry {
	r := &Registry{log: log, connectors: newNotifier(), brokers: newNotifier(), sessions: map[types.NamespacedName]registered{}}
	ctx, r.cancel = context.WithCancel(ctx)
	r.ctx = ctx
	go r.connectors.run(ctx)
	go r.brokers.run(ctx)
	return r
}

// Start blocks until ctx ends and closes every session then (manager.Runnable).
func (r *Registry) Start(ctx context.Context) error {
	<-ctx.Done()
	r.Close()
	return nil
}

// Close ends every session.
func (r *Registry) Close() {
	r.cancel()
	r.mu.Lock()
	all := r.sessions
	r.sessions = map[types.NamespacedName]registered{}
	r.mu.Unlock()
	for _, s := range all {
		s.session.close()
	}
}

// Set makes the session of a Broker, or makes it anew when how to reach the broker has changed. It does not wait for the broker.
func (r *Registry) Set(broker types.NamespacedName, p Params) error {
	fingerprint, err := p.fingerprint()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.sessions[broker]
	if ok && old.fingerprint == fingerprint {
		return nil
	}
	session := newSession(r.ctx, p, r.log.WithValues("broker", broker.String()), func() { r.brokers.add(broker) }, r.connectors.add)
	r.sessions[broker] = registered{session: session, fingerprint: fingerprint}
	if ok {
		go old.session.close()
		r.brokers.add(broker)
	}
	return nil
}

// Remove ends the session of a Broker.
func (r *Registry) Remove(broker types.NamespacedName) {
	r.mu.Lock()
	old, ok := r.sessions[broker]
	delete(r.sessions, broker)
	r.mu.Unlock()
	if ok {
		go old.session.close()
		r.brokers.add(broker)
	}
}

// Session implements Sessions.
func (r *Registry) Session(broker types.NamespacedName) (Session, error) { return r.live(broker) }

func (r *Registry) live(broker types.NamespacedName) (*session, error) {
	r.mu.Lock()
	s, ok := r.sessions[broker]
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("Broker %s: %w: there is no session yet", broker, ErrUnreachable)
	}
	if c := s.session.connection(); !c.Live {
		if c.Err != nil {
			return nil, fmt.Errorf("Broker %s: %w: %w", broker, ErrUnreachable, c.Err)
		}
		return nil, fmt.Errorf("Broker %s: %w: still connecting", broker, ErrUnreachable)
	}
	return s.session, nil
}

// Connection of a Broker's session; false when there is none.
func (r *Registry) Connection(broker types.NamespacedName) (Connection, bool) {
	r.mu.Lock()
	s, ok := r.sessions[broker]
	r.mu.Unlock()
	if !ok {
		return Connection{}, false
	}
	return s.session.connection(), true
}

// Connectors implements Sessions.
func (r *Registry) Connectors() <-chan types.NamespacedName { return r.connectors.out }

// Brokers implements Sessions.
func (r *Registry) Brokers() <-chan types.NamespacedName { return r.brokers.out }

// notifier passes names on. Adding never blocks, and a name that waits already is not added again.
type notifier struct {
	out chan types.NamespacedName

	mu      sync.Mutex
	waiting map[types.NamespacedName]bool
	queue   []types.NamespacedName
	more    chan struct{}
}

func newNotifier() *notifier {
	return &notifier{out: make(chan types.NamespacedName), waiting: map[types.NamespacedName]bool{}, more: make(chan struct{}, 1)}
}

func (n *notifier) add(name types.NamespacedName) {
	n.mu.Lock()
	if !n.waiting[name] {
		n.waiting[name] = true
		n.queue = append(n.queue, name)
	}
	n.mu.Unlock()
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *notifier) run(ctx context.Context) {
	for {
		n.mu.Lock()
		var next types.NamespacedName
		some := len(n.queue) > 0
		if some {
			next = n.queue[0]
			n.queue = n.queue[1:]
			delete(n.waiting, next)
		}
		n.mu.Unlock()
		if !some {
			select {
			case <-ctx.Done():
				return
			case <-n.more:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case n.out <- next:
		}
	}
}
