package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// envChild holds the file that says what a child does.
const envChild = "METIP_TEST_SOURCE"

// The steps of a message that a child can be killed at: the source has it and the broker does not, the broker has it and the source does not
// know, and the source knows and is about to acknowledge.
const (
	stepTaken     = "taken"
	stepStored    = "stored"
	stepConfirmed = "confirmed"
)

// childSpec is a source that runs in a process of its own, on a bus that is a file: a line a message, which outlives a kill.
type childSpec struct {
	System  string
	Options json.RawMessage
	Config  contract.Config
	Secrets map[string]string
	Bus     string
	// Position is the file of the source's; empty for none.
	Position string
	// Step at which it kills itself, with its message number After; empty for never.
	Step  string
	After int
}

// Main has to be called first by the TestMain of a package that runs PullSources: in a child it is the source, and never returns.
func Main() {
	file := os.Getenv(envChild)
	if file == "" {
		return
	}
	if err := runChild(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec childSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	system, ok := lookup(spec.System)
	if !ok || system.Source == nil {
		return fmt.Errorf("the catalogue has no source %q", spec.System)
	}
	out, err := os.OpenFile(spec.Bus, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	secrets := &fakes.Secrets{}
	secrets.Set(spec.Secrets)
	runtime := fakes.NewRuntime(&spec.Config, slog.New(slog.NewTextHandler(os.Stderr, nil)), secrets, nil)
	runtime.Position = position(spec.Position)
	source, err := system.Source(runtime, spec.Options)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return source.Run(ctx, &fileBus{spec: &spec, out: out}, &fakes.Reporter{})
}

// fileBus is the bus of a child.
type fileBus struct {
	spec  *childSpec
	mu    sync.Mutex
	out   *os.File
	count int
}

// Publish implements sdk.Publisher.
func (b *fileBus) Publish(_ context.Context, messages ...*sdk.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count += len(messages)
	doomed := b.spec.Step != "" && b.count >= b.spec.After
	if doomed && b.spec.Step == stepTaken {
		die()
	}
	lines := strings.Builder{}
	lines.WriteByte('\n') // after what a child has left half written
	for _, m := range messages {
		fmt.Fprintln(&lines, strconv.Quote(contract.MessageID("uid", m.Endpoint, m.ID)), strconv.Quote(string(m.Data)))
	}
	if _, err := b.out.WriteString(lines.String()); err != nil {
		return err
	}
	switch {
	case doomed && b.spec.Step == stepStored:
		die()
	case doomed && b.spec.Step == stepConfirmed:
		time.AfterFunc(rand.N(4*time.Millisecond), die)
	}
	return nil
}

// Ready implements sdk.Publisher.
func (b *fileBus) Ready() error { return nil }

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// stored reads what children have put on the bus: the ids of each message.
func (h *PullHarness) stored(t *testing.T, file string) map[int]map[string]int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	out := map[int]map[string]int{}
	for line := range strings.Lines(string(raw)) {
		var id, data string
		if _, err := fmt.Sscanf(line, "%q %q\n", &id, &data); err != nil {
			continue // empty, or half a line that was not confirmed
		}
		n := h.number(t, &sdk.Message{ID: id, Data: []byte(data)})
		if out[n] == nil {
			out[n] = map[string]int{}
		}
		out[n][id]++
	}
	return out
}

func (h *PullHarness) spawn(t *testing.T, bus, step string, after int) *enginetest.Process {
	t.Helper()
	raw, err := json.Marshal(childSpec{System: h.System, Options: h.Options, Config: h.config(), Secrets: h.Secrets, Bus: bus, Position: h.Position, Step: step, After: after})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "child.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return enginetest.Spawn(t, "source", envChild+"="+file)
}

func pullKilled(t *testing.T, h *PullHarness) {
	const messages = 900
	bus := filepath.Join(t.TempDir(), "bus")
	h.Put(t, 0, messages, 200)
	killed := 0
	for round := range 9 {
		step := []string{stepTaken, stepStored, stepConfirmed}[round%3]
		child := h.spawn(t, bus, step, 1+rand.N(80))
		deadline := time.Now().Add(pullWithin)
		for ended := false; !ended; {
			select {
			case <-child.Ended():
				ended = true
				killed++
			case <-time.After(20 * time.Millisecond):
				ended = len(h.stored(t, bus)) == messages
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: the source neither takes in everything nor comes to be killed", round)
			}
		}
		child.Kill()
	}
	if killed < 3 {
		t.Fatalf("only %d of the rounds ended by a kill", killed)
	}
	h.finish(t, bus, messages)
	repeats := 0
	for n, ids := range h.stored(t, bus) {
		if len(ids) != 1 {
			t.Errorf("message %d has the ids %v", n, ids)
		}
		for _, times := range ids {
			repeats += times - 1
		}
	}
	t.Logf("%d kills, %d messages, %d of them came again", killed, messages, repeats)
}

// finish lets a source that nobody kills take in what is left. The last messages may be on the bus already, and not acknowledged: each process is given
// longer for that than the one before.
func (h *PullHarness) finish(t *testing.T, bus string, messages int) {
	t.Helper()
	for given, deadline := 100*time.Millisecond, time.Now().Add(pullWithin); ; given *= 2 {
		child := h.spawn(t, bus, "", 0)
		fakes.Eventually(t, pullWithin, "every message is on the bus", func() bool { return len(h.stored(t, bus)) == messages })
		select {
		case <-child.Ended():
		case <-time.After(given):
		}
		child.Terminate()
		left := h.Left(t)
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are left in the system", left)
		}
	}
}
