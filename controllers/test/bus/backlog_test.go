package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// TestPendingMessagesAreTheRoutesOwn: a destination that waits is owed messages, and not the operator's marks.
func TestPendingMessagesAreTheRoutesOwn(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, quickTrim, streams("ns", "intg"))
	idle := durable("ns", "intg", "idle", "db", "nobody")
	idle.RouteUID, idle.Paused = "r-2", true
	f.ensureDurable(t, idle)
	pending := func() map[string]string {
		list, err := f.session.Durables(t.Context(), "ns_intg")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, d := range list {
			out[d.Route+"/"+d.Destination] = fmt.Sprintf("%d waiting, %d held", d.Pending, d.AckPending)
		}
		return out
	}
	marks := func(want int) {
		t.Helper()
		eventually(t, 20*time.Second, func() string {
			stream, err := f.admin.Stream(t.Context(), "ns_intg")
			if err != nil {
				return err.Error()
			}
			consumer, err := stream.Consumer(t.Context(), idle.Name)
			if err != nil {
				return err.Error()
			}
			if n := consumer.CachedInfo().NumPending; n < uint64(want) {
				return fmt.Sprintf("%d marks", n)
			}
			return ""
		})
	}
	for round := range 3 {
		publish(t, f.source, contract.EventSubject("ns", "intg", "src", 0, "x"), 5)
		marks(round + 1)
	}
	eventually(t, 20*time.Second, func() string {
		got := pending()
		if got["idle/db"] != "0 waiting, 0 held" || got["route/db"] != "15 waiting, 0 held" {
			return fmt.Sprint(got)
		}
		return ""
	})
}
