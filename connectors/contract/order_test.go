package contract

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// matches tells whether a subject matches a filter.
func matches(filter, subject string) bool {
	f, s := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, t := range f {
		if t == ">" {
			return len(s) > i
		}
		if i >= len(s) || t != "*" && t != s[i] {
			return false
		}
	}
	return len(f) == len(s)
}

func TestLanesShareTheSlots(t *testing.T) {
	filters := []string{EventFilter("ns", "in", "src", "custody.*"), EventFilter("ns", "in", "src2", ""), ReplayFilter("ns", "in", "r", "db")}
	for _, lanes := range []int{1, 2, 4, 8, 16} {
		if !ValidLanes(lanes) {
			t.Errorf("%d lanes must be allowed", lanes)
		}
		for slot := range Slots {
			for _, subject := range []string{
				EventSubject("ns", "in", "src", slot, "custody.arrest"), EventSubject("ns", "in", "src2", slot, "a.b.c"), ReplaySubject("ns", "in", "r", "db", slot),
			} {
				var in []int
				for lane := range lanes {
					for _, f := range LaneFilters(filters, lanes, lane) {
						if matches(f, subject) {
							in = append(in, lane)
						}
					}
				}
				if diff := cmp.Diff([]int{slot % lanes}, in); diff != "" {
					t.Errorf("%s is in the wrong lane of %d: %s", subject, lanes, diff)
				}
			}
		}
	}
	for _, lanes := range []int{-4, 0, 3, 5, 32} {
		if ValidLanes(lanes) {
			t.Errorf("%d lanes must not be allowed", lanes)
		}
	}
	if diff := cmp.Diff([]string{"evt.ns.in.src.3.custody.*", "evt.ns.in.src2.3.>", "rpl.ns.in.r.db.3"}, LaneFilters(filters, 16, 3)); diff != "" {
		t.Error(diff)
	}
}

func TestDurables(t *testing.T) {
	name := DurableName("ns", "r", "db")
	if diff := cmp.Diff([]string{"ns_r_db"}, Durables(name, 0)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"ns_r_db_p0", "ns_r_db_p1"}, Durables(name, 2)); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyLanesMayBeReset(t *testing.T) {
	granted := func(lanes int) (reset, next []string) {
		for _, s := range SinkPermissions("ns", "snk", []SinkDestination{{Integration: "in", Route: "r", Destination: "db", Lanes: lanes}}).Publish {
			if strings.HasPrefix(s, "bus.API.CONSUMER.RESET.") {
				reset = append(reset, s)
			}
			if strings.HasPrefix(s, "bus.API.CONSUMER.MSG.NEXT.") {
				next = append(next, s)
			}
		}
		return reset, next
	}
	if reset, next := granted(0); reset != nil || !cmp.Equal(next, []string{"bus.API.CONSUMER.MSG.NEXT.ns_in.ns_r_db"}) {
		t.Errorf("without lanes: %q, %q", reset, next)
	}
	reset, next := granted(2)
	if diff := cmp.Diff([]string{"bus.API.CONSUMER.RESET.ns_in.ns_r_db_p0", "bus.API.CONSUMER.RESET.ns_in.ns_r_db_p1"}, reset); diff != "" {
		t.Error(diff)
	}
	if len(next) != 2 {
		t.Errorf("with lanes: %q", next)
	}
}
