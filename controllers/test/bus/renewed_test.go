package bus_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// Dead letters are named by their message's sequence: a stream that is made anew beside them must not use one twice.
func TestARenewedStreamBeginsBeyondTheFormer(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, shortLived())
	subject := contract.EventSubject("ns", "intg", "src", 0, "x")
	publish(t, f.source, subject, 3)
	bury := func() uint64 {
		t.Helper()
		durable, err := edgeJetStream(t, f.sink).Consumer(t.Context(), contract.EventStream("ns", "intg"), contract.DurableName("ns", "route", "db"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := durable.Next()
		if err != nil {
			t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		letter := contract.DeadSubject("ns", "intg", "route", "db", meta.Sequence.Stream, 0)
		if _, err := edgeJetStream(t, f.sink).Publish(t.Context(), letter, m.Data(), jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
			t.Errorf("the dead letter of message %d: %v", meta.Sequence.Stream, err)
		}
		return meta.Sequence.Stream
	}
	if first := bury(); first != 1 {
		t.Errorf("the first stream begins at %d", first)
	}
	for range 2 {
		if err := f.admin.DeleteStream(t.Context(), contract.EventStream("ns", "intg")); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			if changed, err := f.session.EnsureStreams(t.Context(), shortLived()); err != nil || changed != want {
				t.Fatal(fmt.Sprint("changed ", changed), err)
			}
		}
		f.ensureDurable(t, durable("ns", "intg", "route", "db", "src"))
		publish(t, f.source, subject, 3)
		if first := bury(); first < 1e15 {
			t.Errorf("the stream that was made anew begins at %d", first)
		}
	}
}
