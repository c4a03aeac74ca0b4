package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// noticeWithin is how soon a failure must be known (the operator shows it within 10 s).
const noticeWithin = 8 * time.Second

// SinkHarness is a system under test, made for one behaviour.
type SinkHarness struct {
	// System as the catalogue names it, with its Options, and how it authenticates and encrypts.
	System  string
	Options json.RawMessage
	Config  contract.Config
	// Secrets that are right; WrongCredentials and WrongCA replace some of them.
	Secrets          map[string]string
	WrongCredentials map[string]string
	// CheckKnowsCredentials: Check logs in. Where it cannot, only a write says that credentials are wrong.
	CheckKnowsCredentials bool
	WrongCA               map[string]string
	// WrongCertificate replaces the client's by one that the system does not trust; nil where it asks for none.
	WrongCertificate map[string]string
	// Endpoint that errors must name.
	Endpoint string

	// Good makes a message that the system accepts, with a body of about size bytes. The same i is the same message.
	Good func(i, size int) *sdk.Delivery
	// Poison makes a message that the system never accepts.
	Poison func(i int) *sdk.Delivery
	// Stop the system as a crash does, and Start it again at the same address.
	Stop, Start func(t *testing.T)
	// Effects says how often each good message has had its effect in the system.
	Effects func(t *testing.T) map[int]int
	// AtLeastOnce: a message that is delivered again has its effect again. Identities tells then how many messages the system takes each for:
	// what is delivered again must be recognisable.
	AtLeastOnce bool
	Identities  func(t *testing.T) map[int]int
	// Arrived lists the messages in the order of their effects; nil where batches promise no order.
	Arrived func(t *testing.T) []int
	// Slow makes the system answer nothing, with its connections open, until resume is called; nil where the tests cannot.
	Slow func(t *testing.T) (resume func())
	// Mapped is a message with everything that the page's table of headers names, the trace context too, and what looks for it in the system;
	// nil where the system has no headers.
	Mapped func(t *testing.T) (d *sdk.Delivery, check func(t *testing.T))
	// Remove what messages are written to (a table), and Restore it. Nil where the system has no such thing.
	Remove, Restore func(t *testing.T)
	// Rotate makes the system accept other credentials only, and returns them. Stored connections may go on.
	Rotate func(t *testing.T) map[string]string
}

// sinkRun is a sink that is open on a harness.
type sinkRun struct {
	*SinkHarness
	secrets *fakes.Secrets
	sink    sdk.Sink
	op      sdk.Operation
}

func (h *SinkHarness) open(t *testing.T, secrets *fakes.Secrets) *sinkRun {
	t.Helper()
	system, ok := lookup(h.System)
	if !ok || system.Sink == nil {
		t.Fatalf("the catalogue has no sink %q", h.System)
	}
	config := h.Config
	config.Sink = &contract.Sink{System: contract.System{Type: h.System, Options: h.Options}}
	sink, err := system.Sink(fakes.Runtime(t, &config, secrets, nil), h.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	op, err := sink.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	if op.MaxBatch() < 1 {
		t.Fatalf("MaxBatch is %d", op.MaxBatch())
	}
	return &sinkRun{h, secrets, sink, op}
}

func (h *SinkHarness) start(t *testing.T) *sinkRun {
	t.Helper()
	secrets := &fakes.Secrets{}
	secrets.Set(h.Secrets)
	return h.open(t, secrets)
}

// write messages as the engine does: in batches that the operation takes. It returns a result for each.
func (r *sinkRun) write(t *testing.T, messages ...*sdk.Delivery) []error {
	t.Helper()
	var results []error
	for len(messages) > 0 {
		n := min(len(messages), r.op.MaxBatch())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		answer := r.op.Write(ctx, messages[:n])
		cancel()
		if len(answer) != n {
			t.Fatalf("%d results for %d messages", len(answer), n)
		}
		results = append(results, answer...)
		messages = messages[n:]
	}
	return results
}

func (r *sinkRun) mustWrite(t *testing.T, messages ...*sdk.Delivery) {
	t.Helper()
	for i, err := range r.write(t, messages...) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

func (h *SinkHarness) goods(from, to int) []*sdk.Delivery {
	var out []*sdk.Delivery
	for i := from; i < to; i++ {
		out = append(out, h.Good(i, 500))
	}
	return out
}

// wantEffects of messages from..to-1, each exactly once, or recognisably the same.
func (r *sinkRun) wantEffects(t *testing.T, from, to int) {
	t.Helper()
	effects := r.Effects(t)
	if r.AtLeastOnce {
		effects = r.Identities(t)
	}
	for i := from; i < to; i++ {
		if effects[i] != 1 {
			t.Errorf("message %d had its effect %d times", i, effects[i])
		}
	}
	if len(effects) != to-from {
		t.Errorf("%d messages had an effect, want %d", len(effects), to-from)
	}
}

// wantDown asks for an UnavailableError, from a write and from Check where that can know, soon, that names the endpoint and no secret.
func (r *sinkRun) wantDown(t *testing.T, reason string, message *sdk.Delivery, alsoCheck bool) {
	t.Helper()
	started := time.Now()
	errs := r.write(t, message)
	if alsoCheck {
		errs = append(errs, r.sink.Check(t.Context()))
	}
	if took := time.Since(started); took > noticeWithin {
		t.Errorf("it took %s to notice", took)
	}
	for i, err := range errs {
		var u *sdk.UnavailableError
		if !errors.As(err, &u) || u.Reason != reason {
			t.Fatalf("answer %d: %v, want Unavailable with reason %s", i, err, reason)
		}
		if reason != contract.ReasonCredentialsMissing && !strings.Contains(err.Error(), r.Endpoint) {
			t.Errorf("the endpoint %s is not named: %v", r.Endpoint, err)
		}
		r.wantNoSecret(t, err)
	}
}

func (r *sinkRun) wantNoSecret(t *testing.T, err error) {
	t.Helper()
	for _, file := range []string{contract.FilePassword, contract.FileToken, contract.FileHMACKey, contract.FileTLSKey} {
		value, missing := r.secrets.Get(file)
		if missing == nil && len(value) > 0 && strings.Contains(err.Error(), string(value)) {
			t.Errorf("the error repeats the %s: %v", file, err)
		}
	}
}

// recover asks that a message passes, and that Check agrees, within a moment.
func (r *sinkRun) wantUp(t *testing.T, message *sdk.Delivery) {
	t.Helper()
	var last error
	fakes.Eventually(t, noticeWithin, "a message passes again", func() bool {
		last = r.write(t, message)[0]
		return last == nil
	})
	if err := r.sink.Check(t.Context()); err != nil {
		t.Errorf("a message passed, and Check says: %v", err)
	}
}

// Sinks are the behaviours. Each gets a harness of its own.
func Sinks(t *testing.T, newHarness func(t *testing.T) *SinkHarness) {
	for _, behaviour := range []struct {
		name string
		run  func(t *testing.T, h *SinkHarness)
	}{
		{"what is confirmed is there", confirmedIsThere},
		{"a message delivered again has no second effect", idempotent},
		{"only the poison is permanent", onlyPoison},
		{"writes run side by side", concurrent},
		{"large bodies arrive, and are not kept", large},
		{"a batch arrives in its order", ordered},
		{"a system that does not answer holds nobody for ever", slow},
		{"headers and trace context are carried", mappedHeaders},
		{"an idle sink costs nothing", idleSink},
		{"a system that is down is unavailable, and costs nothing", down},
		{"a crash in mid-batch loses and doubles nothing", crash},
		{"wrong credentials are named, and rotation needs no restart", credentials},
		{"a missing Secret is named, and picked up", missingSecret},
		{"a certificate that does not match is refused", certificate},
		{"credentials that rotate on both sides", rotation},
		{"what is written to is missing", removed},
		{"the context ends the write", cancelled},
	} {
		t.Run(strings.ReplaceAll(strings.ReplaceAll(behaviour.name, ",", ""), " ", "_"), func(t *testing.T) { behaviour.run(t, newHarness(t)) })
	}
}

func confirmedIsThere(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	if err := r.sink.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mustWrite(t, h.goods(0, 120)...)
	r.wantEffects(t, 0, 120)
}

func idempotent(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	r.mustWrite(t, h.goods(0, 20)...)
	r.mustWrite(t, h.goods(10, 30)...)
	again := h.start(t) // another pod
	again.mustWrite(t, h.goods(0, 30)...)
	r.wantEffects(t, 0, 30)
}

func onlyPoison(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	batch := h.goods(0, 40)
	batch[7], batch[31] = h.Poison(7), h.Poison(31)
	for i, err := range r.write(t, batch...) {
		poison := i == 7 || i == 31
		if poison != sdk.IsPermanent(err) || !poison && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if err != nil {
			r.wantNoSecret(t, err)
		}
	}
	effects := r.Effects(t)
	if len(effects) != 38 || effects[7] != 0 || effects[31] != 0 {
		t.Errorf("%d messages had an effect", len(effects))
	}
	if err := r.sink.Check(t.Context()); err != nil {
		t.Errorf("poison says nothing about the system: %v", err)
	}
}

func concurrent(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i, err := range r.write(t, h.goods(worker*25, worker*25+25)...) {
				if err != nil {
					t.Errorf("worker %d, message %d: %v", worker, i, err)
				}
			}
		})
	}
	wg.Wait()
	r.wantEffects(t, 0, 200)
}

func large(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	before := heap()
	for i := range 3 {
		r.mustWrite(t, h.Good(i, contract.MaxMessageSize-1024))
	}
	if kept := heap() - before; kept > 2*contract.MaxMessageSize {
		t.Errorf("it keeps %d MiB", kept>>20)
	}
	r.wantEffects(t, 0, 3)
}

func down(t *testing.T, h *SinkHarness) {
	if h.Stop == nil {
		return // nothing that could crash
	}
	r := h.start(t)
	r.mustWrite(t, h.goods(0, 5)...)
	h.Stop(t)
	var first error
	for i, err := range r.write(t, h.Good(5, 500)) {
		// A connection that broke may count as an attempt once; after that the system is known to be down.
		if err == nil || sdk.IsPermanent(err) {
			t.Errorf("message %d: %v", i, err)
		}
		first = err
	}
	r.wantNoSecret(t, first)
	r.wantDown(t, contract.ReasonConnectionFailed, h.Good(5, 500), true)
	h.Start(t)
	r.wantUp(t, h.Good(5, 500))
	r.wantEffects(t, 0, 6)
}

func crash(t *testing.T, h *SinkHarness) {
	if h.Stop == nil {
		return // nothing that could crash
	}
	r := h.start(t)
	const messages = 600
	pending := map[int]bool{}
	for i := range messages {
		pending[i] = true
	}
	stopped := make(chan struct{})
	var once sync.Once
	deadline := time.Now().Add(60 * time.Second)
	for len(pending) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are still not delivered", len(pending))
		}
		for i := range messages {
			if !pending[i] {
				continue
			}
			size := min(r.op.MaxBatch(), 50)
			var ids []int
			var batch []*sdk.Delivery
			for k := i; k < messages && len(batch) < size; k++ {
				if pending[k] {
					ids = append(ids, k)
					batch = append(batch, h.Good(k, 500))
				}
			}
			if i >= messages/3 {
				once.Do(func() {
					go func() {
						defer close(stopped)
						h.Stop(t)
					}()
				})
			}
			for k, err := range r.write(t, batch...) {
				switch {
				case err == nil:
					delete(pending, ids[k])
				case sdk.IsPermanent(err):
					t.Fatalf("a crash makes no message bad: %v", err)
				}
			}
		}
		select {
		case <-stopped:
			h.Start(t)
			stopped = nil
		default:
		}
	}
	r.wantEffects(t, 0, messages)
}

func credentials(t *testing.T, h *SinkHarness) {
	if len(h.Secrets) == 0 {
		return // it proves itself to nobody
	}
	if h.WrongCredentials == nil {
		t.Fatal("the harness has no wrong credentials")
	}
	r := h.start(t)
	r.secrets.Set(h.WrongCredentials)
	r = h.open(t, r.secrets)
	r.wantDown(t, contract.ReasonAuthenticationFailed, h.Good(0, 500), h.CheckKnowsCredentials)
	r.secrets.Set(h.Secrets)
	r.wantUp(t, h.Good(0, 500))
	r.wantEffects(t, 0, 1)
}

func missingSecret(t *testing.T, h *SinkHarness) {
	if len(h.Secrets) == 0 {
		return // it proves itself to nobody
	}
	r := h.open(t, &fakes.Secrets{})
	r.wantDown(t, contract.ReasonCredentialsMissing, h.Good(0, 500), true)
	if err := r.sink.Check(t.Context()); !strings.Contains(err.Error(), "test-secret") {
		t.Errorf("the Secret is not named: %v", err)
	}
	r.secrets.Set(h.Secrets)
	r.wantUp(t, h.Good(0, 500))
}

func certificate(t *testing.T, h *SinkHarness) {
	for _, wrong := range []map[string]string{h.WrongCA, h.WrongCertificate} {
		if wrong == nil {
			continue // it shows none, or asks for none
		}
		r := h.start(t)
		r.secrets.Set(wrong)
		r = h.open(t, r.secrets)
		r.wantDown(t, contract.ReasonCertificateInvalid, h.Good(0, 500), true)
		r.secrets.Set(h.Secrets)
		r.wantUp(t, h.Good(0, 500))
	}
}

func rotation(t *testing.T, h *SinkHarness) {
	if h.Rotate == nil {
		return // it proves itself to nobody
	}
	r := h.start(t)
	r.mustWrite(t, h.goods(0, 5)...)
	fresh := h.Rotate(t)
	r.secrets.Set(fresh)
	r.wantUp(t, h.Good(5, 500))
	r.mustWrite(t, h.goods(6, 30)...)
	r.wantEffects(t, 0, 30)
}

func removed(t *testing.T, h *SinkHarness) {
	if h.Remove == nil {
		return // nothing that could be missing: the address is all that there is
	}
	r := h.start(t)
	h.Remove(t)
	r.wantDown(t, contract.ReasonSystemError, h.Good(0, 500), false)
	h.Restore(t)
	r.wantUp(t, h.Good(0, 500))
	h.Remove(t)
	r.wantDown(t, contract.ReasonSystemError, h.Good(1, 500), false)
	h.Restore(t)
	r.wantUp(t, h.Good(1, 500))
}

func cancelled(t *testing.T, h *SinkHarness) {
	r := h.start(t)
	r.mustWrite(t, h.Good(0, 500))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	started := time.Now()
	err := r.op.Write(ctx, []*sdk.Delivery{h.Good(1, 500)})[0]
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("Write returned %s after its context had ended", took)
	}
	var u *sdk.UnavailableError
	if sdk.IsPermanent(err) || errors.As(err, &u) {
		t.Errorf("the end of the context says nothing about message or system: %v", err)
	}
	r.mustWrite(t, h.Good(1, 500))
	r.wantEffects(t, 0, 2)
	if err := r.sink.Close(); err != nil {
		t.Error(fmt.Errorf("close: %w", err))
	}
}
