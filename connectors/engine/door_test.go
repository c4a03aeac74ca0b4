package engine

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestSourceSchema(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Source.Schema = &contract.Schema{Text: `{"type":"object","required":["a"],"properties":{"a":{"type":"integer","maximum":9}}}`}
	p, bus, _ := startSource(t, s, c)
	body := func(id, text string) *sdk.Message {
		m := event(id)
		m.Data = []byte(text)
		return m
	}
	if err := bus.Publish(t.Context(), event("good")); err != nil {
		t.Fatal(err)
	}
	large := `{"a":10,"text":"` + strings.Repeat("x", 1<<20) + `"}`
	for want, batch := range map[string][]*sdk.Message{
		"invalid message: the body does not follow the schema: /a breaks the rule maximum: 9":                           {body("x", large)},
		"invalid message: the body does not follow the schema: message 1: the document breaks the rule required: \"a\"": {event("y"), body("z", `{}`)},
	} {
		err := bus.Publish(t.Context(), batch...)
		if !errors.Is(err, sdk.ErrSchema) || !errors.Is(err, sdk.ErrInvalid) || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// Many large bodies at a time wait for each other's memory.
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := bus.Publish(t.Context(), body("w", large)); !errors.Is(err, sdk.ErrSchema) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(s.Messages("ns_in")); n != 1 {
		t.Errorf("%d messages are stored", n)
	}
	if n := p.metric(`metip_connector_refused_total{reason="schema"}`); n != 23 {
		t.Error("refused", n)
	}
}

func TestSourceSchemaThatCannotWork(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := sourceConfig(s)
	c.Source.Schema = &contract.Schema{Text: `{"type":"text"}`}
	f := newFakeSource()
	startPod(t, podOptions{config: c, system: f.system(), creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), time.Hour)})
	report(t, s, "src", "pod-1", "what is wrong", 20*time.Second, func(r contract.Report) bool {
		return !r.System.OK && strings.Contains(r.System.Message, "schema: line 1, column 9: at /type")
	})
	select {
	case <-f.bus:
		t.Error("the door is open")
	default:
	}
}
