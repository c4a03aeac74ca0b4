package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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

// The whole path of a call: HTTP request, engine, broker, engine, system, and back. Whatever fails, the caller is told which hop it was, in its
// time.

// exchange is a source whose requests are answered, and pods of the services that answer them, on a broker of their own.
type exchange struct {
	broker  *enginetest.Server
	address string
	secrets string
	client  *http.Client
}

const callTimeout = 3 * time.Second

func newExchange(t *testing.T, h *ServiceHarness) *exchange {
	t.Helper()
	x := &exchange{broker: enginetest.Start(t, enginetest.Options{}), address: freeAddress(t), secrets: t.TempDir(), client: &http.Client{Timeout: 30 * time.Second}}
	t.Cleanup(x.client.CloseIdleConnections)
	x.broker.Streams(namespace, integration, 64<<20)
	(&flow{}).mount(t, x.secrets, h.Secrets)
	source := contract.Config{
		Auth: contract.Auth{Kind: contract.AuthAnonymous},
		Source: &contract.Source{
			System: contract.System{Type: "http", Options: []byte(`{"path":"/in","exchange":"RequestReply","maxBodySize":"8Mi"}`)}, EventType: "test.event", Format: "JSON",
			DeduplicationWindow: contract.Duration(2 * time.Minute),
			Calls: []contract.Call{{
				Route: "persons", UID: "uid", Integration: integration, Service: "out", Timeout: contract.Duration(callTimeout),
				Request: []contract.Step{{Name: "filter", Filter: `headers.path.startsWith("/persons/") || headers.path == "/hang"`}},
			}},
		},
	}
	x.start(t, "in", "in-1", source, contract.SourcePermissions(namespace, integration, "in", contract.ServiceRef{Integration: integration, Service: "out"}), t.TempDir())
	x.service(t, h, "out-1")
	fakes.Eventually(t, 20*time.Second, "calls are answered", func() bool { status, _, _ := x.get("/persons/1"); return status == http.StatusOK })
	return x
}

// service starts a pod of it, and returns what stops it.
func (x *exchange) service(t *testing.T, h *ServiceHarness, pod string) (stop func()) {
	t.Helper()
	config := h.Config
	if config.Auth.Kind == contract.AuthNone {
		config.Auth.Kind = contract.AuthAnonymous
	}
	config.Service = &contract.Service{System: contract.System{Type: h.System, Options: h.Options}, MaxConcurrent: 16, Timeout: contract.Duration(20 * time.Second)}
	return x.start(t, "out", pod, config, contract.ServicePermissions(namespace, integration, "out", 20*time.Second), x.secrets)
}

func (x *exchange) start(t *testing.T, name, pod string, config contract.Config, permissions contract.Permissions, secrets string) (stop func()) {
	t.Helper()
	config.Version, config.Hash = contract.ConfigVersion, "hash"
	config.Connector = contract.Connector{Namespace: namespace, Name: name, UID: "uid-" + name, Integration: integration, Created: time.Now()}
	config.Broker = x.broker.Broker()
	kind := "http"
	if config.Service != nil {
		kind = config.Service.System.Type
	}
	system, ok := catalog.Lookup(kind)
	if !ok {
		t.Fatalf("no system %q", kind)
	}
	health := freeAddress(t)
	e, err := engine.New(engine.Options{
		Config: &config, System: system, Pod: pod, CredsFile: x.broker.CredsFile(contract.UserName(namespace, name), permissions, 0), SystemDir: secrets,
		ListenAddress: x.address, HealthAddress: health, AllowLoopback: true, Linger: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("pod %s: %v", pod, err)
			}
		case <-time.After(40 * time.Second):
			t.Errorf("pod %s does not end", pod)
		}
	})
	t.Cleanup(stop)
	fakes.Eventually(t, 20*time.Second, pod+" is ready", func() bool {
		r, err := http.Get("http://" + health + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return stop
}

// get is a call; hop is who answered instead of the system.
func (x *exchange) get(path string) (status int, hop, body string) {
	r, err := x.client.Get("http://" + x.address + "/in" + path)
	if err != nil {
		return 0, "", err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, "", err.Error()
	}
	if hop = r.Header.Get("Metip-Hop"); hop != "" {
		var p struct {
			Status int
			Hop    string
		}
		if json.Unmarshal(raw, &p) != nil || p.Status != r.StatusCode || p.Hop != hop || r.Header.Get("Content-Type") != "application/problem+json" {
			return 0, hop, "no problem: " + string(raw)
		}
	}
	return r.StatusCode, hop, string(raw)
}

func (x *exchange) want(t *testing.T, path string, status int, hop string) {
	t.Helper()
	begun := time.Now()
	if s, by, body := x.get(path); s != status || by != hop {
		t.Errorf("%s: %d from %q: %s; want %d from %q", path, s, by, body, status, hop)
	}
	if took := time.Since(begun); took > callTimeout+10*time.Second {
		t.Errorf("%s took %s", path, took)
	}
}

const (
	inHop  = namespace + "/in"
	outHop = namespace + "/out"
)

func TestExchangeThroughFaults(t *testing.T) {
	t.Parallel()
	h := newHTTPService(t)
	x := newExchange(t, h)
	x.want(t, "/persons/7", 200, "")
	x.want(t, "/persons/x", 404, "")
	x.want(t, "/other", 404, inHop)
	x.want(t, "/hang", 504, outHop)
	fakes.Eventually(t, 20*time.Second, "the system has seen that nobody waits", func() bool { return h.Ended() == 1 })

	h.Stop(t)
	fakes.Eventually(t, 20*time.Second, "the dead system is known", func() bool { s, by, _ := x.get("/persons/1"); return s == 503 && by == outHop })
	h.Start(t)
	fakes.Eventually(t, 30*time.Second, "it is back", func() bool { s, _, _ := x.get("/persons/1"); return s == 200 })

	x.broker.Kill()
	fakes.Eventually(t, 20*time.Second, "the broker's absence is known", func() bool { s, by, _ := x.get("/persons/1"); return s == 503 && by == inHop })
	x.broker.Boot()
	fakes.Eventually(t, 60*time.Second, "it is back", func() bool { s, _, _ := x.get("/persons/1"); return s == 200 })
}

// Pods of the service are rolled, and the system restarts, while callers call: every call is answered or told why not, by its own number.
func TestExchangeUnderLoad(t *testing.T) {
	t.Parallel()
	for _, system := range []struct {
		name string
		make func(*testing.T) *ServiceHarness
	}{{"http", newHTTPService}, {"stub", newStubService}} {
		t.Run(system.name, func(t *testing.T) {
			h := system.make(t)
			x := newExchange(t, h)
			var next, failed atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						i := next.Add(1)
						status, hop, body := x.get(fmt.Sprintf("/persons/%d", i))
						switch {
						case status == 200 && !strings.Contains(body, fmt.Sprintf("%d", i)):
							t.Errorf("call %d got %s", i, body)
						case status != 200:
							failed.Add(1)
							t.Logf("call %d: %d from %q: %s", i, status, hop, body)
						}
					}
				})
			}
			previous := func() {}
			for i := range 3 {
				fresh := x.service(t, h, fmt.Sprint("out-", i+2))
				before := next.Load()
				fakes.Eventually(t, 30*time.Second, "calls flow", func() bool { return next.Load() > before+100 })
				previous()
				previous = fresh
			}
			close(stop)
			wg.Wait()
			if failed.Load() > 0 {
				t.Errorf("%d of %d calls failed while pods were rolled", failed.Load(), next.Load())
			}
		})
	}
}

// A caller that goes away is noticed at the other end.
func TestExchangeCancelled(t *testing.T) {
	t.Parallel()
	h := newHTTPService(t)
	x := newExchange(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.address+"/in/hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r, err := x.client.Do(request)
		if err == nil {
			_ = r.Body.Close()
		}
	}()
	fakes.Eventually(t, 20*time.Second, "the call has reached the system", func() bool {
		seen := h.Seen()
		return len(seen) > 0 && seen[len(seen)-1] == "/api/hang"
	})
	begun := time.Now()
	cancel()
	<-gone
	fakes.Eventually(t, 20*time.Second, "the system has seen that nobody waits", func() bool { return h.Ended() == 1 })
	if took := time.Since(begun); took > callTimeout-500*time.Millisecond {
		t.Errorf("it took %s: that was the time-out", took)
	}
}
