package flow

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/metip/metip/test/demo/arrests"
)

// Ledger of one destination: by case id, what has to arrive, what must be refused, and what was seen.
type Ledger struct {
	Destination string
	// Sent is when each record was posted, and Filtered how many must not arrive.
	Sent     map[string]time.Time
	Filtered int
	// Due are to be delivered, and Refused are to go to the dead letters.
	Due, Refused map[string]bool
	// Delivered is when each case arrived, and Times how often it was written (0 where that is unknown).
	Delivered map[string]time.Time
	Times     map[string]int
	// Dead are the dead letters, by case id: how many each.
	Dead map[string]int
}

// NewLedger of a destination; refuses tells which records the destination can never accept.
func NewLedger(destination string, sent []Sent, refuses func(arrests.Fate) bool) *Ledger {
	l := &Ledger{
		Destination: destination, Sent: map[string]time.Time{}, Due: map[string]bool{}, Refused: map[string]bool{},
		Delivered: map[string]time.Time{}, Times: map[string]int{}, Dead: map[string]int{},
	}
	for _, s := range sent {
		id, fate := s.CaseID(), s.Fate()
		l.Sent[id] = s.At
		switch {
		case fate.Filtered:
			l.Filtered++
		case refuses(fate):
			l.Refused[id] = true
		default:
			l.Due[id] = true
		}
	}
	return l
}

// Open is how many records are neither delivered nor dead and have to be.
func (l *Ledger) Open() int {
	open := 0
	for id := range l.Due {
		if l.Delivered[id].IsZero() && l.Dead[id] == 0 {
			open++
		}
	}
	for id := range l.Refused {
		if l.Dead[id] == 0 && l.Delivered[id].IsZero() {
			open++
		}
	}
	return open
}

// Problems that keep the ledger from adding up, none when it does.
func (l *Ledger) Problems() []string {
	var problems []string
	add := func(what string, ids []string) {
		if len(ids) > 0 {
			sort.Strings(ids)
			problems = append(problems, fmt.Sprintf("%s: %d %s: %s", l.Destination, len(ids), what, abbreviate(ids)))
		}
	}
	delivered, dead := keys(l.Delivered), keys(l.Dead)
	add("not delivered", without(keys(l.Due), func(id string) bool { return !l.Delivered[id].IsZero() }))
	add("delivered that should not have been", without(delivered, func(id string) bool { return l.Due[id] }))
	add("missing among the dead letters", without(keys(l.Refused), func(id string) bool { return l.Dead[id] > 0 }))
	add("dead letters that should have been delivered", without(dead, func(id string) bool { return l.Refused[id] }))
	add("dead-lettered more than once", without(dead, func(id string) bool { return l.Dead[id] == 1 }))
	add("written more than once", without(keys(l.Times), func(id string) bool { return l.Times[id] <= 1 }))
	return problems
}

// Latencies from posting to arrival, in order.
func (l *Ledger) Latencies() []time.Duration {
	var all []time.Duration
	for id, at := range l.Delivered {
		if sent, ok := l.Sent[id]; ok {
			all = append(all, at.Sub(sent))
		}
	}
	slices.Sort(all)
	return all
}

// Quantile of sorted durations, 0 when there is none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func keys[V any](m map[string]V) []string { return slices.Collect(maps.Keys(m)) }

func without(ids []string, drop func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(ids), drop)
}

func abbreviate(ids []string) string {
	const most = 5
	if len(ids) > most {
		return strings.Join(ids[:most], ", ") + ", ..."
	}
	return strings.Join(ids, ", ")
}
