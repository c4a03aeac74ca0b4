package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// A durable consumer is given to one pod at a time, and to any again, without losing its place.
func TestDurableOfOnePod(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	publish(t, f.source, contract.EventSubject("ns", "intg", "src", 0, "x"), 10)
	one := func(options ...jetstream.FetchOpt) error {
		consumer, err := f.admin.Consumer(t.Context(), "ns_intg", "ns_route_db")
		if err != nil {
			return err
		}
		batch, err := consumer.Fetch(1, append(options, jetstream.FetchMaxWait(5*time.Second))...)
		if err != nil {
			return err
		}
		for m := range batch.Messages() {
			return m.DoubleAck(t.Context())
		}
		if err := batch.Error(); err != nil {
			return err
		}
		return errors.New("no message")
	}
	if err := one(); err != nil {
		t.Fatal(err)
	}
	d := durable("ns", "intg", "route", "db", "src")
	for _, onePod := range []bool{true, false} {
		d.OnePod = onePod
		if changed, err := f.session.EnsureDurable(t.Context(), d); err != nil || !changed {
			t.Fatalf("changed %v, %v", changed, err)
		}
		if changed, err := f.session.EnsureDurable(t.Context(), d); err != nil || changed {
			t.Errorf("again: changed %v, %v", changed, err)
		}
		if onePod {
			if err := one(); err == nil {
				t.Error("a pod that asks for no pin gets a message")
			}
		}
		eventually(t, 30*time.Second, func() string { // the pin of before lasts for a while
			var options []jetstream.FetchOpt
			if onePod {
				options = append(options, jetstream.FetchPriorityGroup(contract.LaneGroup))
			}
			if err := one(options...); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	consumer, err := f.admin.Consumer(t.Context(), "ns_intg", "ns_route_db")
	if err != nil {
		t.Fatal(err)
	}
	info := consumer.CachedInfo()
	if info.NumPending != 7 || info.NumAckPending != 0 {
		t.Errorf("%d pending, %d unacknowledged", info.NumPending, info.NumAckPending)
	}
}
