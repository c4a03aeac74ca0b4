package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// laneDurable is one lane of ns/intg's Route route, destination db.
func laneDurable(lanes, lane int) bus.Durable {
	d := durable("ns", "intg", "route", "db", "src")
	d.Filters = append(contract.LaneFilters([]string{contract.EventFilter("ns", "intg", "src", "")}, lanes, lane), contract.MarkSubject("ns", "intg"))
	d.Name, d.Lanes, d.Window = contract.LaneName(d.Name, lane), lanes, contract.LaneWindow
	return d
}

func TestLanesAreMadeOnceAndNeverMoved(t *testing.T) {
	for _, servers := range []int{1, 3} {
		b := bustest.Start(t, bustest.Options{Servers: servers})
		session, _ := b.Session(nil)
		_, js := b.Admin()
		ctx := t.Context()
		if _, err := session.EnsureStreams(ctx, streams("ns", "intg")); err != nil {
			t.Fatal(err)
		}
		d := laneDurable(4, 1)
		if changed, err := session.EnsureDurable(ctx, d); err != nil || !changed {
			t.Fatalf("first EnsureDurable: changed %v, err %v", changed, err)
		}
		eventually(t, 5*time.Second, func() string {
			if changed, err := session.EnsureDurable(ctx, d); err != nil || changed {
				return fmt.Sprintf("again: changed %v, err %v", changed, err)
			}
			return ""
		})
		for n := range 4 {
			if _, err := js.Publish(ctx, contract.EventSubject("ns", "intg", "src", 1+4*n, "t"), []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		// What a lane of four has acknowledged says nothing of a lane of two, which has other slots besides.
		c, err := js.Consumer(ctx, d.Stream, d.Name)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := c.Fetch(4, jetstream.FetchMaxWait(10*time.Second), jetstream.FetchPriorityGroup(contract.LaneGroup))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			if err := m.DoubleAck(ctx); err != nil {
				t.Fatal(err)
			}
		}
		two := laneDurable(2, 1)
		if changed, err := session.EnsureDurable(ctx, two); err != nil || !changed {
			t.Fatalf("with other lanes: changed %v, err %v", changed, err)
		}
		eventually(t, 10*time.Second, func() string {
			c, err := js.Consumer(ctx, two.Stream, two.Name)
			if err != nil {
				return err.Error()
			}
			if i := c.CachedInfo(); i.NumPending != 4 || len(i.Config.FilterSubjects) != 9 {
				return fmt.Sprintf("%d pending by %d filters", i.NumPending, len(i.Config.FilterSubjects))
			}
			return ""
		})
	}
}

// A sink may reset and leave its own lanes, and nobody else's, also not by way of what the server answers.
func TestResettingALaneTouchesNoOther(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	ctx := t.Context()
	for i := range 2 {
		f.ensureDurable(t, laneDurable(2, i))
	}
	mine := f.user(t, "lanes", contract.SinkPermissions("ns", "lanes", []contract.SinkDestination{{Integration: "intg", Route: "route", Destination: "db", Lanes: 2}}))
	stream, victim := contract.EventStream("ns", "intg"), contract.DurableName("ns", "route", "db")
	for i := range 5 {
		if _, err := f.admin.Publish(ctx, contract.EventSubject("ns", "intg", "src", i, "t"), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	next := contract.APIPrefix + ".CONSUMER.MSG.NEXT." + stream + "." + victim
	inbox := f.sink.NewInbox()
	sub, err := f.sink.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.sink.PublishRequest(next, inbox, []byte(`{"batch":3,"expires":5000000000}`)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := sub.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		c, err := f.admin.Consumer(ctx, stream, victim)
		if err != nil {
			return err.Error()
		}
		i := c.CachedInfo()
		return fmt.Sprintf("delivered %d/%d, floor %d, %d to acknowledge", i.Delivered.Consumer, i.Delivered.Stream, i.AckFloor.Stream, i.NumAckPending)
	}
	before := state()
	lane := contract.LaneName(victim, 0)
	for _, call := range []string{"RESET", "UNPIN", "INFO"} {
		subject := contract.APIPrefix + ".CONSUMER." + call + "." + stream + "." + lane
		if _, err := mine.Request(subject, []byte(`{"group":"lane"}`), 5*time.Second); err != nil {
			t.Errorf("%s of one's own lane: %v", call, err)
		}
		for _, target := range []string{"RESET", "UNPIN", "DELETE"} {
			for _, prefix := range []string{contract.APIPrefix, "$JS.API"} {
				if err := mine.PublishRequest(subject, prefix+".CONSUMER."+target+"."+stream+"."+victim, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if call != "INFO" {
			if err := mine.PublishRequest(contract.APIPrefix+".CONSUMER."+call+"."+stream+"."+victim, mine.NewInbox(), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := mine.Flush(); err != nil {
		t.Fatal(err)
	}
	// What was sent before this is dealt with before it.
	if _, err := mine.Request(contract.APIPrefix+".CONSUMER.INFO."+stream+"."+lane, nil, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if after := state(); after != before {
		t.Errorf("the neighbour was touched: %s, before %s", after, before)
	}
}
