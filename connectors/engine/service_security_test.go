package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// connect as a user of account EDGE with these permissions.
func connect(t testing.TB, s *enginetest.Server, name string, p contract.Permissions, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append(options, nats.UserCredentials(s.CredsFile(name, p, time.Hour)), nats.CustomInboxPrefix("_INBOX."+name))
	nc, err := nats.Connect(s.URL(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// refusals that the broker has told a connection.
type refusals struct {
	mu   sync.Mutex
	said []string
}

func (r *refusals) option() nats.Option {
	return nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if errors.Is(err, nats.ErrPermissionViolation) {
			r.said = append(r.said, err.Error())
		}
	})
}

func (r *refusals) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.said {
		if strings.Contains(strings.ToLower(s), strings.ToLower(text)) {
			return true
		}
	}
	return false
}

func TestWhatCallersAndServicesMayNot(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	subject := contract.ServiceSubject("ns", "in", "svc")
	other := contract.ServiceSubject("ns", "in", "other")
	service := contract.ServiceRef{Integration: "in", Service: "svc"}

	var callers, responders refusals
	caller := connect(t, s, "ns_src", contract.SourcePermissions("ns", "in", "src", service), callers.option())
	responder := connect(t, s, "ns_svc", contract.ServicePermissions("ns", "in", "svc", time.Second), responders.option())

	// A caller hears no requests, in the queue group or beside it, nor cancellations, nor other callers' answers.
	for _, subscribe := range []func() error{
		func() error { _, err := caller.SubscribeSync(subject); return err },
		func() error { _, err := caller.QueueSubscribeSync(subject, subject); return err },
		func() error { _, err := caller.SubscribeSync("svc.>"); return err },
		func() error { _, err := caller.SubscribeSync(subject + ".cancel"); return err },
		func() error { _, err := caller.SubscribeSync("_INBOX.>"); return err },
	} {
		if err := subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	// It calls no other service, and answers nobody.
	for _, to := range []string{other, "_INBOX.ns_other.x.1", "evt.ns.in.other.0.x", "status.ns.svc.p"} {
		if err := caller.Publish(to, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{
		`Subscription to "` + subject + `"`, `using queue "` + subject + `"`, `Subscription to "svc.>"`, `Subscription to "` + subject + `.cancel"`, `Subscription to "_INBOX.>"`,
		`Publish to "` + other + `"`, `Publish to "_INBOX.ns_other.x.1"`, `Publish to "evt.ns.in.other.0.x"`, `Publish to "status.ns.svc.p"`,
	} {
		within(t, 10*time.Second, "the caller is refused: "+text, func() bool { return callers.has(text) })
	}

	// A responder takes its turn only, calls nobody, and answers only what it was asked, once.
	requests, err := responder.QueueSubscribeSync(subject, subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, subscribe := range []func() error{
		func() error { _, err := responder.SubscribeSync(subject); return err },
		func() error { _, err := responder.QueueSubscribeSync(subject, "mine"); return err },
		func() error { _, err := responder.QueueSubscribeSync(other, other); return err },
	} {
		if err := subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{subject, other, "evt.ns.in.svc.0.x", "_INBOX.ns_src.guess"} {
		if err := responder.Publish(to, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{
		`Subscription to "` + subject + `"`, `using queue "mine"`, `Subscription to "` + other + `"`,
		`Publish to "` + subject + `"`, `Publish to "` + other + `"`, `Publish to "evt.ns.in.svc.0.x"`, `Publish to "_INBOX.ns_src.guess"`,
	} {
		within(t, 10*time.Second, "the responder is refused: "+text, func() bool { return responders.has(text) })
	}
	answers, err := caller.SubscribeSync("_INBOX.ns_src.call.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.PublishRequest(subject, "_INBOX.ns_src.call.1", []byte("q")); err != nil {
		t.Fatal(err)
	}
	m, err := requests.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := m.Respond([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := answers.NextMsg(10 * time.Second); err != nil || string(a.Data) != "first" {
		t.Fatal(a, err)
	}
	within(t, 10*time.Second, "the second answer is refused", func() bool { return responders.has(`Publish to "_INBOX.ns_src.call.1"`) })
	if n, _, _ := answers.Pending(); n != 0 {
		t.Error("the second answer came through")
	}
}

// Reply subjects are not permission-checked: a caller that wants its answer on somebody's subject must not get it stored as somebody's message.
func TestAnswersGoToInboxesOnly(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(func(_ context.Context, r *sdk.Request) (*sdk.Answer, error) { return text("%s", r.Data), nil })
	p := startService(t, s, "svc-1", f, nil)
	caller := connect(t, s, "ns_src", contract.SourcePermissions("ns", "in", "src", contract.ServiceRef{Integration: "in", Service: "svc"}))
	subject := contract.ServiceSubject("ns", "in", "svc")
	victims := []string{"evt.ns.in.victim.0.custody.arrest", "dead.ns.in.r.d.1-0", "status.ns.victim.p", "bus.API.CONSUMER.INFO.ns_in.x"}
	if err := caller.Publish(subject, []byte("nowhere to answer to")); err != nil {
		t.Fatal(err)
	}
	for _, reply := range victims {
		if err := caller.PublishRequest(subject, reply, []byte("forged")); err != nil {
			t.Fatal(err)
		}
	}
	// What comes after them is answered, so they have been seen.
	if a, err := caller.Request(subject, []byte("honest"), 20*time.Second); err != nil || string(a.Data) != "honest" {
		t.Fatal(a, err)
	}
	if n := f.count(); n != 1 {
		t.Errorf("the system was called %d times", n)
	}
	if n := p.metric(`metip_connector_calls_refused_total{reason="malformed"}`); n != float64(len(victims)+1) {
		t.Errorf("%v were counted as malformed, want %d", n, len(victims)+1)
	}
	for _, stream := range []string{"ns_in", "ns_in_dead"} {
		if all := s.Messages(stream); len(all) != 0 {
			t.Errorf("%s holds %d messages", stream, len(all))
		}
	}
}

// The broker goes and comes: calls meanwhile are told so, and later ones are answered.
func TestCallsThroughABrokerRestart(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	begun := make(chan struct{}, 1)
	f := newFakeService(func(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
		if r.Path == "/slow" {
			begun <- struct{}{}
			return hang(ctx, r)
		}
		return text("done"), nil
	})
	p := startService(t, s, "svc-1", f, nil)
	_, k := startCaller(t, s, serviceCall(nil))
	slow := make(chan *sdk.Answer, 1)
	go func() { slow <- k.Call(t.Context(), ask("GET", "/slow", "")) }()
	<-begun
	s.Kill()
	within(t, 20*time.Second, "calls are refused", func() bool { return answer(t, k, ask("GET", "/", "")).Status == 503 })
	// What was under way is given up long before its time is.
	wantAnswer(t, <-slow, 502, callerHop, "may have been done")
	s.Boot()
	within(t, 60*time.Second, "calls are answered again", func() bool { return answer(t, k, ask("GET", "/", "")).Status == 200 })
	within(t, 20*time.Second, "the pod says that all is well", func() bool { err, _ := p.engine.conn.state(); return err == nil })
}

// A reconnection that is wanted, as when credentials are renewed or a server is about to end, cuts off no call.
func TestCallsThroughAReconnection(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeService(func(context.Context, *sdk.Request) (*sdk.Answer, error) {
		time.Sleep(5 * time.Millisecond)
		return text("done"), nil
	})
	services := []*pod{startService(t, s, "svc-1", f, nil), startService(t, s, "svc-2", f, nil)}
	source, k := startCaller(t, s, serviceCall(nil))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls, failed atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				if a := answer(t, k, ask("POST", "/", `{}`)); a.Status != 200 {
					failed.Add(1)
					t.Logf("%d: %s", a.Status, a.Data)
				}
			}
		})
	}
	for _, p := range append(services, source, services[0]) {
		before := calls.Load()
		within(t, 30*time.Second, "calls flow", func() bool { return calls.Load() > before+50 })
		old := p.engine.conn.nc.Stats().Reconnects
		p.engine.conn.reconnect()
		within(t, 30*time.Second, "the pod has reconnected", func() bool { return p.engine.conn.nc.Stats().Reconnects > old && p.engine.conn.isUp() })
	}
	before := f.count()
	within(t, 30*time.Second, "calls flow", func() bool { return f.count() > before+50 })
	close(stop)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
	}
	for _, p := range services {
		before := p.metric(`metip_connector_calls_total{outcome="answered"}`)
		within(t, 30*time.Second, "both pods take calls again", func() bool {
			answer(t, k, ask("GET", "/", ""))
			return p.metric(`metip_connector_calls_total{outcome="answered"}`) > before
		})
	}
}
