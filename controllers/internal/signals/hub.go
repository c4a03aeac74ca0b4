package signals

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/metip/metip/controllers/internal/bus"
)

// Hub reads the channels of bus.Sessions and hands each name to all who asked.
type Hub struct {
	sessions bus.Sessions

	mu         sync.RWMutex
	connectors []func(types.NamespacedName)
	brokers    []func(types.NamespacedName)
}

// NewHub of the sessions. It must be added to the manager.
func NewHub(sessions bus.Sessions) *Hub { return &Hub{sessions: sessions} }

// Start passes names on until ctx ends (manager.Runnable). Nothing that it calls blocks.
func (h *Hub) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case name := <-h.sessions.Connectors():
			h.tell(&h.connectors, name)
		case name := <-h.sessions.Brokers():
			h.tell(&h.brokers, name)
		}
	}
}

func (h *Hub) tell(list *[]func(types.NamespacedName), name types.NamespacedName) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, f := range *list {
		f(name)
	}
}

// Map from a name to what must be reconciled.
type Map func(ctx context.Context, name types.NamespacedName) []reconcile.Request

// Connectors is a source of Connectors whose reports changed.
func (h *Hub) Connectors(m Map) source.Source { return h.source(&h.connectors, m) }

// Brokers is a source of Brokers whose session was gained or lost.
func (h *Hub) Brokers(m Map) source.Source { return h.source(&h.brokers, m) }

func (h *Hub) source(list *[]func(types.NamespacedName), m Map) source.Source {
	return source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		*list = append(*list, func(name types.NamespacedName) {
			for _, r := range m(ctx, name) {
				queue.Add(r)
			}
		})
		return nil
	})
}
