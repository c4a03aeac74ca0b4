package contract

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A destination whose order is kept is read by lanes: durable consumers that share the slots of its messages, and of which each serves one
// pod at a time (priority policy pinned_client). Pods compete for them, so that the number of pods changes nothing on the broker. The
// number of lanes never changes while the destination lives: a slot that moved between durables would lose what the former one still owed.

// Order of a destination's messages (Delivery.Order).
type Order string

// The orders.
const (
	// OrderNone: in parallel.
	OrderNone Order = ""
	// OrderPerKey: messages of one key one after the other.
	OrderPerKey Order = "PerKey"
	// OrderStrict: one message after the other.
	OrderStrict Order = "Strict"
)

// Settings of a lane's durable consumer.
const (
	// LaneGroup is its priority group.
	LaneGroup = "lane"
	// LanePinTime is how long a pod keeps its lane after it last asked for messages (priority_timeout).
	LanePinTime = 5 * time.Second
	// LaneWindow is how many messages of a lane may be delivered and not acknowledged; 1 where the order is Strict.
	LaneWindow = 64
	// LaneAckWait is the time after which what a pod was given, and has said nothing about, comes again. It is for what got lost on the way:
	// who takes a lane over begins where it was acknowledged last, and does not wait.
	LaneAckWait = 6 * time.Second
	// DefaultLanes of a destination that says nothing else.
	DefaultLanes = 4
)

// ValidLanes tells whether a destination may have so many lanes.
func ValidLanes(n int) bool { return n >= 1 && n <= Slots && Slots%n == 0 }

// LaneName is the durable consumer of one lane, from 0, of a destination whose DurableName is given.
func LaneName(durable string, lane int) string { return durable + "_p" + strconv.Itoa(lane) }

// Durables of a destination: its lanes, or the one that its DurableName says where it has none.
func Durables(durable string, lanes int) []string {
	if lanes == 0 {
		return []string{durable}
	}
	out := make([]string, lanes)
	for i := range out {
		out[i] = LaneName(durable, i)
	}
	return out
}

// LaneFilters are the filters of one lane of so many: the filters of the whole destination (EventFilter, ReplayFilter), each for the lane's
// slots alone.
func LaneFilters(filters []string, lanes, lane int) []string {
	if lanes == 1 {
		return slices.Clone(filters)
	}
	var out []string
	for _, f := range filters {
		for slot := lane; slot < Slots; slot += lanes {
			// The slot is the first token that is a wildcard: names before it hold none.
			out = append(out, strings.Replace(f, ".*", "."+strconv.Itoa(slot), 1))
		}
	}
	return out
}

// Window of a lane with this order.
func (o Order) Window() int {
	if o == OrderStrict {
		return 1
	}
	return LaneWindow
}
