package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// pullWithin is how long a test waits for what a source does by itself: a machine may be very busy.
const pullWithin = 60 * time.Second

// PullHarness is a system that keeps its messages until the source acknowledges them (a queue, a table, a folder), made for one behaviour.
// A field that is nil is what the system cannot do, and its page says so.
type PullHarness struct {
	System  string
	Options json.RawMessage
	Config  contract.Config
	// Secrets that are right. The others replace some of them: what the system refuses, an authority that has not signed its certificate, and a
	// client certificate that it does not trust.
	Secrets                                     map[string]string
	WrongCredentials, WrongCA, WrongCertificate map[string]string
	// Position is a file that keeps how far the source has read (sdk.Position); empty where the system remembers that itself.
	Position string
	// Endpoint that errors must name, and Object (the queue, the table) that they must name when it is missing.
	Endpoint, Object string

	// Put messages from..to-1 into the system, with a body of about size bytes each; it returns when the system has them. The body is a JSON
	// object whose member id is the message's number, unless Number says otherwise.
	Put    func(t *testing.T, from, to, size int)
	Number func(m *sdk.Message) (int, error)
	// Left counts the messages that the system has and that were not acknowledged. It is asked while no source runs.
	Left func(t *testing.T) int
	// Window is how many messages the source takes in at most that are not acknowledged.
	Window int
	// Ordered: messages reach the bus in the order in which they were put.
	Ordered bool
	// Shared: two pods may read at once, each its part.
	Shared bool
	// Forgetful: a crash may cost the system acknowledgements, and it gives those messages out again, in its own time.
	Forgetful bool
	// Largest body in bytes; 0 means contract.MaxMessageSize less 1 KiB.
	Largest int

	// Stop the system as a crash does, and Start it again at the same address, with the messages that it had.
	Stop, Start func(t *testing.T)
	// Remove what messages are read from, and Restore it. Both may lose its messages.
	Remove, Restore func(t *testing.T)
	// Rotate makes the system accept other credentials only, and returns them. Stored connections may go on.
	Rotate func(t *testing.T) map[string]string
	// Traced puts message i with a trace context.
	Traced func(t *testing.T, i int, traceparent string)
	// Mapped puts message i with everything that the page's table of headers names, and returns what checks the message on the bus.
	Mapped func(t *testing.T, i int) (check func(t *testing.T, m *sdk.Message))
}

// pullRun is a source that runs on a harness.
type pullRun struct {
	*PullHarness
	secrets *fakes.Secrets
	bus     *fakes.Publisher
	state   *fakes.Reporter
	stop    func() error
}

func (h *PullHarness) config() contract.Config {
	config := h.Config
	config.Connector.Created = time.Now()
	config.Source = &contract.Source{
		System: contract.System{Type: h.System, Options: h.Options}, EventType: "test.event", Format: sdk.FormatJSON,
		DeduplicationWindow: contract.Duration(2 * time.Minute), Position: h.Position != "",
	}
	return config
}

// position of a pod; nil where the source keeps none.
func position(file string) sdk.Position {
	if file == "" {
		return nil
	}
	return fakes.NewPosition(file)
}

func (h *PullHarness) open(t *testing.T, bus *fakes.Publisher, secrets *fakes.Secrets) *pullRun {
	t.Helper()
	system, ok := lookup(h.System)
	if !ok || system.Source == nil {
		t.Fatalf("the catalogue has no source %q", h.System)
	}
	config := h.config()
	runtime := fakes.Runtime(t, &config, secrets, nil)
	runtime.Position = position(h.Position)
	source, err := system.Source(runtime, h.Options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &pullRun{PullHarness: h, secrets: secrets, bus: bus, state: &fakes.Reporter{}}
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, bus, r.state) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (h *PullHarness) run(t *testing.T, bus *fakes.Publisher) *pullRun {
	t.Helper()
	secrets := &fakes.Secrets{}
	secrets.Set(h.Secrets)
	return h.open(t, bus, secrets)
}

func (h *PullHarness) number(t *testing.T, m *sdk.Message) int {
	t.Helper()
	n, err := h.numberOf(m)
	if err != nil {
		t.Fatalf("message %s of the source is none of the test's: %v: %.100q", m.ID, err, m.Data)
	}
	return n
}

func (h *PullHarness) numberOf(m *sdk.Message) (int, error) {
	if h.Number != nil {
		return h.Number(m)
	}
	var body struct {
		ID *int `json:"id"`
	}
	if err := json.Unmarshal(m.Data, &body); err != nil {
		return 0, err
	}
	if body.ID == nil {
		return 0, errors.New("no member id")
	}
	return *body.ID, nil
}

// await until the bus has n messages.
func (r *pullRun) await(t *testing.T, n int) {
	t.Helper()
	fakes.Eventually(t, pullWithin, fmt.Sprintf("%d messages are on the bus", n), func() bool { return len(r.bus.Stored()) >= n })
}

// wantStored asks that the bus has messages from..to-1, each once, in order where the system promises one.
func (r *pullRun) wantStored(t *testing.T, from, to int) {
	t.Helper()
	r.await(t, to-from)
	seen := map[int]string{}
	last := from - 1
	for _, m := range r.bus.Stored() {
		n := r.number(t, m)
		if other, twice := seen[n]; twice {
			t.Errorf("message %d is there as %q and as %q", n, other, m.ID)
		}
		seen[n] = m.ID
		if r.Ordered && n != last+1 {
			t.Errorf("message %d comes after %d", n, last)
		}
		last = n
	}
	for n := from; n < to; n++ {
		if seen[n] == "" {
			t.Errorf("message %d is lost", n)
		}
	}
	if len(seen) != to-from {
		t.Errorf("%d messages, want %d", len(seen), to-from)
	}
}

// wantEnd stops the source, and asks what is left in the system.
func (r *pullRun) wantEnd(t *testing.T, left int) {
	t.Helper()
	if r.Forgetful && left == 0 {
		fakes.Eventually(t, pullWithin, "the system has been told again", func() bool { return r.Left(t) == 0 })
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	r.wantLeft(t, left)
}

func (r *pullRun) wantLeft(t *testing.T, left int) {
	t.Helper()
	if r.Left == nil {
		return
	}
	var got int
	defer func() {
		if got != left {
			t.Errorf("%d messages are left in the system, want %d", got, left)
		}
	}()
	fakes.Eventually(t, pullWithin, fmt.Sprintf("%d messages are left in the system", left), func() bool { got = r.Left(t); return got == left })
}

// wantDown waits for an error of this reason that names the endpoint and these words, and no secret.
func (r *pullRun) wantDown(t *testing.T, reason string, words ...string) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("the last state is: %v", last)
		}
	}()
	fakes.Eventually(t, pullWithin, "the state is "+reason, func() bool {
		last, _ = r.state.State()
		var u *sdk.UnavailableError
		return errors.As(last, &u) && u.Reason == reason
	})
	if reason != contract.ReasonCredentialsMissing {
		words = append(words, r.Endpoint)
	}
	for _, word := range words {
		if !strings.Contains(last.Error(), word) {
			t.Errorf("%q is not named: %v", word, last)
		}
	}
	for _, file := range []string{contract.FilePassword, contract.FileToken, contract.FileHMACKey, contract.FileTLSKey} {
		value, missing := r.secrets.Get(file)
		if missing == nil && len(value) > 0 && strings.Contains(last.Error(), string(value)) {
			t.Errorf("the error repeats the %s: %v", file, last)
		}
	}
}

func (r *pullRun) wantUp(t *testing.T) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("the last state is: %v", last)
		}
	}()
	fakes.Eventually(t, pullWithin, "the state is good", func() (reported bool) {
		last, reported = r.state.State()
		return reported && last == nil
	})
}

// PullSources are the behaviours. Each gets a harness of its own.
func PullSources(t *testing.T, newHarness func(t *testing.T) *PullHarness) {
	for _, behaviour := range []struct {
		name string
		run  func(t *testing.T, h *PullHarness)
	}{
		{"what is there comes, and is acknowledged", pulled},
		{"nothing is acknowledged before the broker has it", pullHeld},
		{"what the broker refuses stays, without haste, and comes as the same message", pullRefused},
		{"a lost confirmation makes no second message, also for another pod", pullRepeated},
		{"the source takes in no more than its window", pullWindow},
		{"large bodies come, and memory is bounded", pullLarge},
		{"a kill at every step loses nothing", pullKilled},
		{"two pods share the work", pullShared},
		{"a system that crashes is reported, and work resumes", pullRestart},
		{"a missing Secret is named, and picked up", pullSecret},
		{"wrong credentials are named, and rotation needs no restart", pullCredentials},
		{"a certificate that does not match is refused", pullCertificate},
		{"what is read from is missing", pullRemoved},
		{"a drain settles what was taken in, and repeats nothing", pullDrain},
		{"an idle source costs nothing, and ends at once", pullIdle},
		{"trace context and headers are carried", pullHeaders},
	} {
		t.Run(strings.ReplaceAll(strings.ReplaceAll(behaviour.name, ",", ""), " ", "_"), func(t *testing.T) { behaviour.run(t, newHarness(t)) })
	}
}

func pulled(t *testing.T, h *PullHarness) {
	r := h.run(t, &fakes.Publisher{})
	r.wantUp(t)
	h.Put(t, 0, 300, 500)
	r.wantStored(t, 0, 300)
	r.wantEnd(t, 0)
	for _, m := range r.bus.Stored() {
		if m.ID == "" || m.ContentType == "" {
			t.Fatalf("message %+v has no id or no content type", m)
		}
	}
	// Another pod goes on where it stopped.
	h.Put(t, 300, 320, 500)
	again := h.run(t, &fakes.Publisher{})
	again.wantStored(t, 300, 320)
	again.wantEnd(t, 0)
}

func pullHeld(t *testing.T, h *PullHarness) {
	bus := &fakes.Publisher{}
	release := bus.Hold()
	r := h.run(t, bus)
	h.Put(t, 0, 20, 500)
	fakes.Eventually(t, pullWithin, "messages are being published", func() bool { return bus.Calls() > 0 })
	bus.Fail(errors.New("no servers")) // what waits now is never confirmed
	release()
	r.wantEnd(t, 20)
	if n := len(bus.Stored()); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}

func pullRefused(t *testing.T, h *PullHarness) {
	r := h.run(t, &fakes.Publisher{})
	r.wantUp(t)
	r.bus.Fail(sdk.ErrFull)
	h.Put(t, 0, 10, 500)
	fakes.Eventually(t, pullWithin, "messages are being published", func() bool { return r.bus.Asked() > 0 })
	for _, failure := range []error{sdk.ErrSuspended, errors.New("no servers")} {
		r.bus.Fail(failure)
		before := r.bus.Calls()
		time.Sleep(500 * time.Millisecond) // what a source may do within a time is asked, not how soon it does it
		if calls := r.bus.Calls() - before; calls > 500 {
			t.Errorf("%v: it has tried %d times in half a second", failure, calls)
		}
	}
	r.bus.Fail(nil)
	r.wantStored(t, 0, 10)
	r.wantEnd(t, 0)
}

func pullRepeated(t *testing.T, h *PullHarness) {
	bus := &fakes.Publisher{}
	bus.Lose(errors.New("the broker breaks off"))
	first := h.run(t, bus)
	h.Put(t, 0, 30, 500)
	first.await(t, 1) // a source that keeps an order goes no further
	fakes.Eventually(t, pullWithin, "it tries again", func() bool { return bus.Repeats() > 0 })
	first.wantEnd(t, 30)
	second := h.run(t, bus)
	before := bus.Repeats()
	fakes.Eventually(t, pullWithin, "another pod tries again", func() bool { return bus.Repeats() > before })
	before = bus.Repeats()
	given := len(bus.Stored()) // which need not be all of them: a source that takes them in one by one goes no further than the first
	bus.Lose(nil)
	fakes.Eventually(t, pullWithin, "it has given all of them again", func() bool { return bus.Repeats() >= before+given })
	second.wantStored(t, 0, 30)
	second.wantEnd(t, 0)
}

func pullWindow(t *testing.T, h *PullHarness) {
	r := h.run(t, &fakes.Publisher{})
	h.Put(t, 0, 100, 100) // a source may begin slowly
	r.await(t, 100)
	release := r.bus.Hold()
	total := 100 + 3*h.Window
	h.Put(t, 100, total, 100)
	fakes.Eventually(t, pullWithin, "messages are being published", func() bool { n, _ := r.bus.Waiting(); return n > 0 })
	time.Sleep(500 * time.Millisecond) // time to take in too much
	release()
	r.wantStored(t, 0, total)
	if _, most := r.bus.Waiting(); most > h.Window {
		t.Errorf("%d messages were taken in at once, the window is %d", most, h.Window)
	}
	r.wantEnd(t, 0)
}

func pullShared(t *testing.T, h *PullHarness) {
	if !h.Shared {
		return // one pod reads at a time
	}
	bus := &fakes.Publisher{}
	runs := []*pullRun{h.run(t, bus), h.run(t, bus)}
	for _, r := range runs {
		r.wantUp(t)
	}
	h.Ordered = false
	h.Put(t, 0, 400, 200)
	runs[0].wantStored(t, 0, 400)
	for _, r := range runs {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
	runs[0].wantLeft(t, 0)
	if n := bus.Repeats(); n != 0 {
		t.Errorf("%d messages came twice", n)
	}
}

func pullRestart(t *testing.T, h *PullHarness) {
	if h.Stop == nil {
		return // nothing that could crash
	}
	r := h.run(t, &fakes.Publisher{})
	h.Put(t, 0, 10, 500)
	r.wantStored(t, 0, 10)
	// With messages under way, whose acknowledgement gets lost.
	release := r.bus.Hold()
	h.Put(t, 10, 20, 500)
	fakes.Eventually(t, pullWithin, "messages are being published", func() bool { n, _ := r.bus.Waiting(); return n > 0 })
	h.Stop(t)
	r.wantDown(t, contract.ReasonConnectionFailed)
	release()
	h.Start(t)
	r.wantUp(t)
	h.Put(t, 20, 30, 500)
	r.wantStored(t, 0, 30)
	r.wantEnd(t, 0)
}

func pullSecret(t *testing.T, h *PullHarness) {
	if len(h.Secrets) == 0 {
		return // it proves itself to nobody
	}
	r := h.open(t, &fakes.Publisher{}, &fakes.Secrets{})
	r.wantDown(t, contract.ReasonCredentialsMissing, "test-secret")
	r.secrets.Set(h.Secrets)
	r.wantUp(t)
	h.Put(t, 0, 5, 500)
	r.wantStored(t, 0, 5)
}

// merged are the secrets with some replaced.
func merged(secrets, some map[string]string) map[string]string {
	out := maps.Clone(secrets)
	maps.Copy(out, some)
	return out
}

func pullCredentials(t *testing.T, h *PullHarness) {
	if h.WrongCredentials == nil {
		return // it proves itself to nobody
	}
	secrets := &fakes.Secrets{}
	secrets.Set(merged(h.Secrets, h.WrongCredentials))
	r := h.open(t, &fakes.Publisher{}, secrets)
	r.wantDown(t, contract.ReasonAuthenticationFailed)
	secrets.Set(h.Secrets)
	r.wantUp(t)
	h.Put(t, 0, 10, 500)
	r.wantStored(t, 0, 10)
	if h.Rotate == nil {
		return
	}
	secrets.Set(h.Rotate(t))
	h.Put(t, 10, 20, 500)
	r.wantStored(t, 0, 20)
	if h.Stop != nil { // no connection is left that was made with the former ones
		h.Stop(t)
		h.Start(t)
	}
	h.Put(t, 20, 30, 500)
	r.wantStored(t, 0, 30)
	r.wantUp(t)
	r.wantEnd(t, 0)
}

func pullCertificate(t *testing.T, h *PullHarness) {
	for _, wrong := range []map[string]string{h.WrongCA, h.WrongCertificate} {
		if wrong == nil {
			continue // no connection, no certificate
		}
		secrets := &fakes.Secrets{}
		secrets.Set(merged(h.Secrets, wrong))
		r := h.open(t, &fakes.Publisher{}, secrets)
		r.wantDown(t, contract.ReasonCertificateInvalid)
		secrets.Set(h.Secrets)
		r.wantUp(t)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
}

func pullRemoved(t *testing.T, h *PullHarness) {
	if h.Remove == nil {
		return // nothing that could be missing
	}
	h.Remove(t)
	r := h.run(t, &fakes.Publisher{})
	r.wantDown(t, contract.ReasonSystemError, h.Object)
	h.Restore(t)
	r.wantUp(t)
	h.Put(t, 0, 5, 500)
	r.wantStored(t, 0, 5)
	h.Remove(t)
	r.wantDown(t, contract.ReasonSystemError, h.Object)
	h.Restore(t)
	r.wantUp(t)
	h.Put(t, 5, 10, 500)
	r.wantStored(t, 0, 10)
}

func pullDrain(t *testing.T, h *PullHarness) {
	bus := &fakes.Publisher{}
	r := h.run(t, bus)
	h.Put(t, 0, 50, 500)
	r.await(t, 50)
	release := bus.Hold()
	h.Put(t, 50, 500, 500)
	fakes.Eventually(t, pullWithin, "messages are being published", func() bool { n, _ := bus.Waiting(); return n > 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	select {
	case err := <-stopped:
		t.Errorf("the source ended with messages under way: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	release()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	r.wantLeft(t, 500-len(bus.Stored()))
	second := h.run(t, bus)
	second.wantStored(t, 0, 500)
	second.wantEnd(t, 0)
	if n := bus.Repeats(); n != 0 {
		t.Errorf("%d messages came again that were settled", n)
	}
}

const traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func pullHeaders(t *testing.T, h *PullHarness) {
	r := h.run(t, &fakes.Publisher{})
	n := 0
	if h.Traced != nil {
		h.Traced(t, n, traceParent)
		r.await(t, n+1)
		if got := r.bus.Stored()[n].Headers[contract.HeaderTraceParent]; got != traceParent {
			t.Errorf("the trace context is %q", got)
		}
		n++
	}
	if h.Mapped != nil {
		check := h.Mapped(t, n)
		r.await(t, n+1)
		check(t, r.bus.Stored()[n])
	}
	r.wantEnd(t, 0)
}
