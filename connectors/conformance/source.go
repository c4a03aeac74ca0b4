package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// SourceHarness is a system that messages come from, made for one behaviour.
type SourceHarness struct {
	System  string
	Options json.RawMessage
	Config  contract.Config
	Secrets map[string]string
	// Offer makes the system give message i (the same i is the same message) to the running source, and says whether it was
	// acknowledged.
	Offer func(ctx context.Context, t *testing.T, r *SourceRun, i int) (acknowledged bool)
	// Forgets says that a message that is not acknowledged is not offered again by itself: the test does.
	Forgets bool
}

// SourceRun is a source that runs.
type SourceRun struct {
	*SourceHarness
	// Address that it listens on, if it does.
	Address string
	bus     *fakes.Publisher
	state   *fakes.Reporter
	stop    func() error
}

func (h *SourceHarness) run(t *testing.T, bus *fakes.Publisher) *SourceRun {
	t.Helper()
	system, ok := lookup(h.System)
	if !ok || system.Source == nil {
		t.Fatalf("the catalogue has no source %q", h.System)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	config := h.Config
	config.Connector.Created = time.Now()
	config.Source = &contract.Source{System: contract.System{Type: h.System, Options: h.Options}, EventType: "test.event", Format: sdk.FormatJSON, DeduplicationWindow: contract.Duration(2 * time.Minute)}
	secrets := &fakes.Secrets{}
	secrets.Set(h.Secrets)
	source, err := system.Source(fakes.Runtime(t, &config, secrets, listener), h.Options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &SourceRun{SourceHarness: h, Address: listener.Addr().String(), bus: bus, state: &fakes.Reporter{}}
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, bus, r.state) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// offer message i, and say whether the system heard that it is safe.
func (r *SourceRun) offer(t *testing.T, i int) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	return r.Offer(ctx, t, r, i)
}

// Await the next message that the broker confirms: what a source is told that offers by itself.
func (r *SourceRun) Await(ctx context.Context) bool {
	before := len(r.bus.Stored())
	for len(r.bus.Stored()) == before {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return true
}

// Sources are the behaviours. Each gets a harness of its own.
func Sources(t *testing.T, newHarness func(t *testing.T) *SourceHarness) {
	for _, behaviour := range []struct {
		name string
		run  func(t *testing.T, h *SourceHarness)
	}{
		{"the state is reported", stateIsReported},
		{"nothing is acknowledged before the broker has it", acknowledgedLate},
		{"what the broker refuses is not acknowledged, and comes again as the same message", refusedComesAgain},
		{"a repeated message is the same message, also for another pod", repeated},
		{"what was taken in is settled before the end", settled},
		{"an idle source ends at once", endsAtOnce},
	} {
		t.Run(strings.ReplaceAll(behaviour.name, " ", "_"), func(t *testing.T) { behaviour.run(t, newHarness(t)) })
	}
}

func stateIsReported(t *testing.T, h *SourceHarness) {
	r := h.run(t, &fakes.Publisher{})
	fakes.Eventually(t, 5*time.Second, "the state is good", func() bool {
		err, reported := r.state.State()
		return reported && err == nil
	})
}

func acknowledgedLate(t *testing.T, h *SourceHarness) {
	r := h.run(t, &fakes.Publisher{})
	release := r.bus.Hold()
	acknowledged := make(chan bool, 1)
	go func() { acknowledged <- r.offer(t, 1) }()
	fakes.Eventually(t, 10*time.Second, "the message is being published", func() bool { return r.bus.Calls() > 0 })
	select {
	case <-acknowledged:
		t.Error("the message was answered before the broker had it")
	case <-time.After(200 * time.Millisecond):
	}
	release()
	if !<-acknowledged {
		t.Error("the message was not acknowledged")
	}
}

func refusedComesAgain(t *testing.T, h *SourceHarness) {
	r := h.run(t, &fakes.Publisher{})
	for _, failure := range []error{sdk.ErrFull, sdk.ErrSuspended, errors.New("no servers")} {
		r.bus.Fail(failure)
		if h.Forgets && r.offer(t, 1) {
			t.Errorf("%v: the message was acknowledged", failure)
		}
	}
	if n := len(r.bus.Stored()); n != 0 {
		t.Fatalf("%d messages are stored", n)
	}
	r.bus.Fail(nil)
	if !r.offer(t, 1) {
		t.Error("the message was not acknowledged")
	}
	if n := len(r.bus.Stored()); n < 1 {
		t.Error("the message is lost")
	}
}

func repeated(t *testing.T, h *SourceHarness) {
	bus := &fakes.Publisher{}
	first := h.run(t, bus)
	for range 2 {
		if !first.offer(t, 1) {
			t.Fatal("the message was not acknowledged")
		}
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	before := len(bus.Stored())
	if h.Forgets {
		if second := h.run(t, bus); !second.offer(t, 1) {
			t.Fatal("the message was not acknowledged")
		}
		if after := len(bus.Stored()); after != 1 {
			t.Errorf("%d messages of one, %d before", after, before)
		}
	}
	seen := map[string]bool{}
	for _, m := range bus.Stored() {
		if m.ID == "" || seen[m.ID] {
			t.Errorf("id %q is empty or not unique", m.ID)
		}
		seen[m.ID] = true
	}
}

func settled(t *testing.T, h *SourceHarness) {
	r := h.run(t, &fakes.Publisher{})
	release := r.bus.Hold()
	acknowledged := make(chan bool, 1)
	go func() { acknowledged <- r.offer(t, 1) }()
	fakes.Eventually(t, 10*time.Second, "the message is being published", func() bool { return r.bus.Calls() > 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	select {
	case err := <-stopped:
		release()
		t.Fatalf("the source ended with a message under way: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	release()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if !<-acknowledged || len(r.bus.Stored()) == 0 {
		t.Error("the message under way was dropped")
	}
}

func endsAtOnce(t *testing.T, h *SourceHarness) {
	r := h.run(t, &fakes.Publisher{})
	if !r.offer(t, 1) {
		t.Fatal("the message was not acknowledged")
	}
	started := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
