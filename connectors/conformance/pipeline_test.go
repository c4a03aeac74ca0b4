package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine"
	"github.com/metip/metip/connectors/engine/enginetest"
)

// The whole path: POST, engine, broker, engine, system. Each fault must show in the pod's report within 10 s, pass, and cost nothing
// that was acknowledged.

const namespace, integration = "test", "custody"

// flow is a source and a sink on a broker of their own.
type flow struct {
	*SinkHarness
	broker  *enginetest.Server
	address string
	secrets string // the sink's mounted folder
	next    atomic.Int64
	mu      sync.Mutex
	posted  []int
}

func newFlow(t *testing.T, h *SinkHarness, secrets map[string]string) *flow {
	t.Helper()
	return newFlowOf(t, h, secrets, 256<<20)
}

// newFlowOf a stream of maxBytes.
func newFlowOf(t *testing.T, h *SinkHarness, secrets map[string]string, maxBytes int64) *flow {
	t.Helper()
	f := &flow{SinkHarness: h, broker: enginetest.Start(t, enginetest.Options{}), secrets: t.TempDir(), address: freeAddress(t)}
	f.broker.Streams(namespace, integration, maxBytes)
	f.broker.Durable(namespace, integration, "route", "to", 5*time.Second)
	f.mount(t, f.secrets, secrets)

	in := t.TempDir()
	f.mount(t, in, map[string]string{contract.FileToken: "token-of-the-caller"})
	source := contract.Config{
		Auth:   contract.Auth{Kind: contract.AuthBearer, SecretName: "callers", Keys: []string{"token"}},
		Source: &contract.Source{System: contract.System{Type: "http", Options: []byte(`{"path":"/in","maxBodySize":"8Mi"}`)}, EventType: "test.event", Format: "JSON", DeduplicationWindow: contract.Duration(2 * time.Minute)},
	}
	f.start(t, "in", source, contract.SourcePermissions(namespace, integration, "in"), in)
	sink := h.Config
	sink.Auth.SecretName, sink.Auth.Keys = "system-login", []string{contract.FileUsername, contract.FilePassword}
	sink.Sink = &contract.Sink{System: contract.System{Type: h.System, Options: h.Options}, Routes: []contract.Route{{
		Name: "route", UID: "route-uid", Destination: "to", Integration: integration, Stream: contract.EventStream(namespace, integration),
		Durable: contract.DurableName(namespace, "route", "to"),
		Steps:   []contract.Step{{Name: "filter", Filter: "!has(data.drop)"}},
		Delivery: contract.Delivery{
			Timeout: contract.Duration(10 * time.Second), Attempts: 5, Backoff: contract.Duration(50 * time.Millisecond), MaxBackoff: contract.Duration(time.Second),
		},
	}}}
	destinations := []contract.SinkDestination{{Integration: integration, Route: "route", Destination: "to"}}
	f.start(t, "out", sink, contract.SinkPermissions(namespace, "out", destinations), f.secrets)
	fakes.Eventually(t, 10*time.Second, "the listener is open", func() bool {
		conn, err := net.Dial("tcp", f.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return f
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// mount files as the kubelet does: all at once.
func (f *flow) mount(t testing.TB, folder string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		temporary := filepath.Join(folder, "..tmp-"+name)
		if err := os.WriteFile(temporary, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *flow) start(t testing.TB, name string, config contract.Config, permissions contract.Permissions, secrets string) {
	t.Helper()
	config.Version, config.Hash = contract.ConfigVersion, "hash"
	config.Connector = contract.Connector{Namespace: namespace, Name: name, UID: "uid-" + name, Integration: integration, Created: time.Now()}
	config.Broker = f.broker.Broker()
	var kind string
	if config.Source != nil {
		kind = config.Source.System.Type
	} else {
		kind = config.Sink.System.Type
	}
	system, ok := catalog.Lookup(kind)
	if !ok {
		t.Fatalf("no system %q", kind)
	}
	e, err := engine.New(engine.Options{
		Config: &config, System: system, Pod: name + "-1", CredsFile: f.broker.CredsFile(contract.UserName(namespace, name), permissions, 0), SystemDir: secrets,
		ListenAddress: f.address, HealthAddress: freeAddress(t), AllowLoopback: true, Linger: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("pod %s: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("pod %s does not end", name)
		}
	})
}

// post messages until the end is called; every one is repeated until it is acknowledged.
func (f *flow) postUntil(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(f.next.Add(1))
				f.post(t, i, string(f.Good(i, 300).Data))
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (f *flow) post(t *testing.T, i int, body string) {
	deadline := time.Now().Add(60 * time.Second)
	for {
		status, err := post(t.Context(), f.address, strconv.Itoa(i), body)
		if err == nil && status == http.StatusAccepted {
			f.mu.Lock()
			f.posted = append(f.posted, i)
			f.mu.Unlock()
			return
		}
		if time.Now().After(deadline) || t.Context().Err() != nil || err == nil && status < 500 {
			t.Errorf("message %d was not accepted: %d, %v", i, status, err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// wantReport waits for a state of the sink's system: a reason, or the empty one for good.
func (f *flow) wantReport(t *testing.T, reason string) {
	t.Helper()
	var last contract.Report
	defer func() {
		if t.Failed() {
			t.Logf("last report: %+v", last)
		}
	}()
	fakes.Eventually(t, 10*time.Second, "the report says "+strconv.Quote(reason), func() bool {
		r, ok := f.broker.Report(namespace, "out", "out-1")
		last = r
		return ok && r.System.Reason == reason && r.System.OK == (reason == "")
	})
}

// wantAll asks that every message that was acknowledged has had its effect, once.
func (f *flow) wantAll(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	posted := append([]int(nil), f.posted...)
	f.mu.Unlock()
	var effects map[int]int
	missing := func() (n int) {
		effects = f.Effects(t)
		for _, i := range posted {
			if effects[i] == 0 {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(30 * time.Second); missing() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r, _ := f.broker.Report(namespace, "out", "out-1")
			t.Fatalf("%d of %d acknowledged messages did not arrive; %d dead letters; the report is %+v", missing(), len(posted),
				len(f.broker.Messages(contract.DeadStream(namespace, integration))), r)
		}
	}
	if f.AtLeastOnce {
		effects = f.Identities(t)
	}
	for i, n := range effects {
		if n != 1 {
			t.Errorf("message %d had its effect %d times", i, n)
		}
	}
	if len(effects) != len(posted) {
		t.Errorf("%d messages had an effect, %d were posted", len(effects), len(posted))
	}
	t.Logf("%d messages, each once", len(posted))
}

func flows(t *testing.T, run func(t *testing.T, h *SinkHarness)) {
	for _, system := range []struct {
		name string
		make func(*testing.T) *SinkHarness
	}{{"http", newHTTP}, {"postgres", newPostgres}, {"rabbitmq", newRabbitSink}} {
		t.Run(system.name, func(t *testing.T) { run(t, system.make(t)) })
	}
}

func TestFlowAddsUp(t *testing.T) {
	flows(t, func(t *testing.T, h *SinkHarness) {
		f := newFlow(t, h, h.Secrets)
		end := f.postUntil(t)
		fakes.Eventually(t, 30*time.Second, "500 messages", func() bool { return f.next.Load() > 500 })
		end()
		f.wantAll(t)
		f.wantReport(t, "")
		// A message that the filter drops, one that the system rejects, and one of the largest size.
		before := len(h.Effects(t))
		f.post(t, 1_000_001, `{"id":1000001,"drop":true}`)
		f.post(t, 1_000_002, string(h.Poison(1_000_002).Data))
		f.post(t, 1_000_003, string(h.Good(1_000_003, contract.MaxMessageSize-1024).Data))
		fakes.Eventually(t, 20*time.Second, "the poison is a dead letter, and the large message has arrived", func() bool {
			return len(f.broker.Messages(contract.DeadStream(namespace, integration))) == 1 && len(h.Effects(t)) == before+1
		})
		dead := f.broker.Messages(contract.DeadStream(namespace, integration))[0]
		if dead.Header.Get(contract.HeaderDeadReason) != contract.DeadReasonRejected || dead.Header.Get(contract.HeaderDeadError) == "" {
			t.Errorf("dead letter %v", dead.Header)
		}
		f.wantReport(t, "")
	})
}

func TestFlowWithoutItsSystem(t *testing.T) {
	flows(t, func(t *testing.T, h *SinkHarness) {
		f := newFlow(t, h, h.Secrets)
		f.wantReport(t, "")
		end := f.postUntil(t)
		fakes.Eventually(t, 20*time.Second, "100 messages", func() bool { return f.next.Load() > 100 })
		h.Stop(t)
		f.wantReport(t, contract.ReasonConnectionFailed)
		h.Start(t)
		f.wantReport(t, "")
		end()
		f.wantAll(t)
		if n := len(f.broker.Messages(contract.DeadStream(namespace, integration))); n != 0 {
			t.Errorf("%d dead letters: an outage must make none", n)
		}
		// The same while nothing flows.
		h.Stop(t)
		f.wantReport(t, contract.ReasonConnectionFailed)
		h.Start(t)
		f.wantReport(t, "")
	})
}

func TestFlowWithoutItsBroker(t *testing.T) {
	flows(t, func(t *testing.T, h *SinkHarness) {
		f := newFlow(t, h, h.Secrets)
		end := f.postUntil(t)
		fakes.Eventually(t, 20*time.Second, "100 messages", func() bool { return f.next.Load() > 100 })
		f.broker.Kill()
		f.broker.Boot()
		seen := f.next.Load()
		fakes.Eventually(t, 30*time.Second, "it goes on", func() bool { return f.next.Load() > seen+100 })
		end()
		f.wantAll(t)
	})
}

func TestFlowWithWrongSecrets(t *testing.T) {
	flows(t, func(t *testing.T, h *SinkHarness) {
		f := newFlow(t, h, nil)
		f.post(t, 1_000_000, string(h.Good(1_000_000, 300).Data))
		f.wantReport(t, contract.ReasonCredentialsMissing)
		for _, step := range []struct {
			wrong  map[string]string
			reason string
		}{
			{h.WrongCredentials, contract.ReasonAuthenticationFailed},
			{h.WrongCA, contract.ReasonCertificateInvalid},
		} {
			files := map[string]string{}
			for _, layer := range []map[string]string{h.Secrets, step.wrong} {
				for name, value := range layer {
					files[name] = value
				}
			}
			f.mount(t, f.secrets, files)
			f.wantReport(t, step.reason)
			r, _ := f.broker.Report(namespace, "out", "out-1")
			for file, value := range files {
				if file == contract.FilePassword && strings.Contains(fmt.Sprint(r), value) {
					t.Errorf("the report repeats the %s: %+v", file, r)
				}
			}
		}
		f.mount(t, f.secrets, h.Secrets)
		f.wantReport(t, "")
		f.wantAll(t)
		fresh := h.Rotate(t)
		f.mount(t, f.secrets, fresh)
		end := f.postUntil(t)
		fakes.Eventually(t, 20*time.Second, "100 messages", func() bool { return f.next.Load() > 100 })
		end()
		f.wantAll(t)
	})
}

// A full bus pushes back, and a message that it will never take is refused; both lose nothing of what was acknowledged before.
func TestFlowPushesBack(t *testing.T) {
	h := newHTTP(t)
	f := newFlowOf(t, h, nil, 1<<20) // without credentials nothing leaves the stream
	full := false
	for i := range 100 {
		status, err := post(t.Context(), f.address, strconv.Itoa(i), string(h.Good(i, 32<<10).Data))
		if err != nil {
			t.Fatal(err)
		}
		switch status {
		case http.StatusAccepted:
			if full {
				t.Errorf("message %d was accepted by a full bus", i)
			}
			f.posted = append(f.posted, i)
		case http.StatusServiceUnavailable:
			full = true
		default:
			t.Fatalf("message %d: %d", i, status)
		}
	}
	if !full || len(f.posted) < 10 {
		t.Fatalf("full: %t after %d messages", full, len(f.posted))
	}
	fakes.Eventually(t, 5*time.Second, "a foreign type is refused", func() bool {
		status, err := postForeign(t.Context(), f.address)
		return err == nil && status == http.StatusBadRequest // 503 while the bus is taken for full
	})
	f.mount(t, f.secrets, h.Secrets)
	f.wantAll(t)
}

// postForeign posts an event of a type that is not the source's.
func postForeign(ctx context.Context, address string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/in", strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	for name, value := range map[string]string{"Authorization": "Bearer token-of-the-caller", "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "prison.release"} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
