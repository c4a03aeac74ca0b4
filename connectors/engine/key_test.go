package engine

import (
	"testing"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestSourceComputesThePartitionKey(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Source.PartitionKey = "data.personId"
	p, bus, _ := startSource(t, s, c)
	for _, m := range []*sdk.Message{
		{ID: "a", Data: []byte(`{"personId":"p-1"}`)},
		{ID: "b", Data: []byte(`{"personId":"p-1"}`), PartitionKey: "the sender's"},
		{ID: "c", Data: []byte(`{"personId":17}`), Headers: map[string]string{"partitionkey": "the sender's"}},
		{ID: "d", Data: []byte(`{}`), PartitionKey: "the sender's"},
		{ID: "e", Data: []byte(`{"personId":null}`), Headers: map[string]string{"partitionkey": "the sender's"}},
	} {
		if err := bus.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []struct{ key, slot string }{{"p-1", "p-1"}, {"p-1", "p-1"}, {"17", "17"}, {"", "d"}, {"", "e"}} {
		m := s.Messages("ns_in")[i]
		if got := m.Header.Get(contract.HeaderPartitionKey); got != want.key {
			t.Errorf("message %d has the key %q, want %q", i, got, want.key)
		}
		if slot, _ := contract.EventSlot(m.Subject); slot != contract.Slot(want.slot) {
			t.Errorf("message %d is in slot %d of %s", i, slot, m.Subject)
		}
	}
	if n := p.metric("metip_connector_keyless_total"); n != 2 {
		t.Errorf("%v messages without a key were counted", n)
	}
}

func TestSourceWithAKeyThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Source.PartitionKey = "data."
	startPod(t, podOptions{
		config: c, system: newFakeSource().system(), creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), 0),
	})
	report(t, s, "src", "pod-1", "the configuration cannot work", testPinTime*10, func(r contract.Report) bool { return !r.System.OK && r.System.Reason == contract.ReasonSystemError })
}
