package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

func streams(ns, intg string) bus.Streams {
	return bus.Streams{
		Namespace: ns, Integration: intg, UID: "u-" + "1", MaxBytes: 64 << 20, DeadMaxBytes: 8 << 20,
		Retention: time.Hour, DeduplicationWindow: 2 * time.Minute,
	}
}

func durable(ns, intg, route, dest, source string) bus.Durable {
	return bus.Durable{
		Stream: contract.EventStream(ns, intg), Name: contract.DurableName(ns, route, dest),
		Filters:  []string{contract.EventFilter(ns, intg, source, ""), contract.MarkSubject(ns, intg)},
		RouteUID: "r-1", Route: route, Destination: dest, AckWait: 30 * time.Second,
	}
}

func TestStreamsAndDurablesAreMadeOnceAndRepaired(t *testing.T) {
	for _, servers := range []int{1, 3} {
		b := bustest.Start(t, bustest.Options{Servers: servers})
		session, _ := b.Session(nil)
		_, js := b.Admin()
		ctx := t.Context()
		changed, err := session.EnsureStreams(ctx, streams("ns", "intg"))
		if err != nil || !changed {
			t.Fatalf("first EnsureStreams: changed %v, err %v", changed, err)
		}
		if changed, err = session.EnsureStreams(ctx, streams("ns", "intg")); err != nil || changed {
			t.Fatalf("second EnsureStreams: changed %v, err %v", changed, err)
		}
		d := durable("ns", "intg", "route", "db", "src")
		d.Start = time.Now()
		if changed, err = session.EnsureDurable(ctx, d); err != nil || !changed {
			t.Fatalf("first EnsureDurable: changed %v, err %v", changed, err)
		}
		if changed, err = session.EnsureDurable(ctx, d); err != nil || changed {
			t.Fatalf("second EnsureDurable: changed %v, err %v", changed, err)
		}
		d.Start = d.Start.Add(-time.Hour)
		d.Paused = true
		if changed, err = session.EnsureDurable(ctx, d); err != nil || !changed {
			t.Fatalf("pausing: changed %v, err %v", changed, err)
		}
		// A cluster answers before its consumer's leader has applied it.
		eventually(t, 5*time.Second, func() string {
			if changed, err := session.EnsureDurable(ctx, d); err != nil || changed {
				return fmt.Sprintf("still paused: changed %v, err %v", changed, err)
			}
			return ""
		})
		list, err := session.Durables(ctx, d.Stream)
		if err != nil || len(list) != 1 || !list[0].Paused || list[0].RouteUID != "r-1" {
			t.Fatalf("Durables: %+v, %v", list, err)
		}
		d.Paused = false
		if changed, err = session.EnsureDurable(ctx, d); err != nil || !changed {
			t.Fatalf("resuming: changed %v, err %v", changed, err)
		}
		if err := js.DeleteStream(ctx, contract.DeadStream("ns", "intg")); err != nil {
			t.Fatal(err)
		}
		if changed, err = session.EnsureStreams(ctx, streams("ns", "intg")); err != nil || !changed {
			t.Fatalf("EnsureStreams after deletion: changed %v, err %v", changed, err)
		}
	}
}
