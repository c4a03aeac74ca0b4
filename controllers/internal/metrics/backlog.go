package metrics

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// backlogStale is how long a count is told that was not renewed: a few looks at the broker. Nothing is told rather than something old.
const backlogStale = 2 * time.Minute

// Destination of a Route, in the namespace of an Integration.
type Destination struct{ Route, Name string }

// Backlog is how many messages wait on the bus for each destination, and what lookup tables hold, as the controller of Integrations found it when it listed the durable
// consumers. There are as many series as destinations: those of an Integration are replaced whole, and go with it. It is safe for concurrent use.
type Backlog struct {
	mu sync.Mutex
	of map[types.NamespacedName]backlog
	// tables of the Integrations that have some.
	tables map[types.NamespacedName]tables
}

type backlog struct {
	at      time.Time
	pending map[Destination]uint64
}

// Table is what a lookup table holds.
type Table struct {
	Name           string
	Bytes, Entries uint64
}

type tables struct {
	at   time.Time
	list []Table
}

// Set what waits for the destinations of an Integration, found at a time.
func (b *Backlog) Set(integration types.NamespacedName, pending map[Destination]uint64, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of == nil {
		b.of = map[types.NamespacedName]backlog{}
	}
	b.of[integration] = backlog{at: at, pending: pending}
}

// Forget an Integration.
func (b *Backlog) Forget(integration types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, integration)
	delete(b.tables, integration)
}

// SetTables of an Integration, found at a time.
func (b *Backlog) SetTables(integration types.NamespacedName, list []Table, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tables == nil {
		b.tables = map[types.NamespacedName]tables{}
	}
	if delete(b.tables, integration); len(list) > 0 {
		b.tables[integration] = tables{at: at, list: list}
	}
}

// eachTable calls f for every table that was looked at lately.
func (b *Backlog) eachTable(now time.Time, f func(integration types.NamespacedName, t Table)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for integration, x := range b.tables {
		if now.Sub(x.at) > backlogStale {
			continue
		}
		for _, t := range x.list {
			f(integration, t)
		}
	}
}

// each calls f once for every destination that was looked at lately. A Route that moves to another Integration is in both for a moment.
func (b *Backlog) each(now time.Time, f func(namespace string, d Destination, pending uint64)) {
	type place struct {
		namespace string
		Destination
	}
	all := map[place]uint64{}
	b.mu.Lock()
	for integration, x := range b.of {
		if now.Sub(x.at) > backlogStale {
			continue
		}
		for d, n := range x.pending {
			all[place{integration.Namespace, d}] += n
		}
	}
	b.mu.Unlock()
	for p, n := range all {
		f(p.namespace, p.Destination, n)
	}
}
