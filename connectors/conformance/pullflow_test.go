package conformance

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine"
	"github.com/metip/metip/connectors/engine/enginetest"
)

// The whole path of a source that pulls: system, engine, broker; with the broker killed meanwhile. What is stored is counted by the engine's
// metrics too.
func TestPullFlow(t *testing.T) {
	for _, system := range []struct {
		name string
		make func(*testing.T) *PullHarness
	}{{"rabbitmq", newRabbitSource}} {
		t.Run(system.name, func(t *testing.T) { pullFlow(t, system.make(t)) })
	}
}

func pullFlow(t *testing.T, h *PullHarness) {
	broker := enginetest.Start(t, enginetest.Options{})
	broker.Streams(namespace, integration, 256<<20)
	secrets, health := t.TempDir(), freeAddress(t)
	(&flow{}).mount(t, secrets, h.Secrets)
	config := h.config()
	config.Version, config.Hash, config.Broker = contract.ConfigVersion, "hash", broker.Broker()
	config.Connector = contract.Connector{Namespace: namespace, Name: "in", UID: "uid-in", Integration: integration, Created: time.Now()}
	config.Auth.SecretName, config.Auth.Keys = "system-login", []string{contract.FileUsername, contract.FilePassword}
	system, _ := catalog.Lookup(h.System)
	e, err := engine.New(engine.Options{
		Config: &config, System: system, Pod: "in-1", SystemDir: secrets, HealthAddress: health, AllowLoopback: true, Log: slog.New(slog.DiscardHandler),
		CredsFile: broker.CredsFile(contract.UserName(namespace, "in"), contract.SourcePermissions(namespace, integration, "in"), 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer stop()
	report := func(reason string) {
		t.Helper()
		var r contract.Report
		defer func() {
			if t.Failed() {
				t.Logf("the last report is %+v", r)
			}
		}()
		fakes.Eventually(t, pullWithin, "the report says "+strconv.Quote(reason), func() (ok bool) {
			r, ok = broker.Report(namespace, "in", "in-1")
			return ok && r.System.Reason == reason && r.System.OK == (reason == "")
		})
	}
	stored := func() int { return len(broker.Messages(contract.EventStream(namespace, integration))) }
	report("")
	h.Put(t, 0, 200, 300)
	fakes.Eventually(t, pullWithin, "200 messages are stored", func() bool { return stored() == 200 })
	if h.Stop != nil {
		h.Stop(t)
		report(contract.ReasonConnectionFailed)
		h.Start(t)
		report("")
	}
	broker.Kill()
	h.Put(t, 200, 410, 300)
	broker.Boot()
	fakes.Eventually(t, pullWithin, "410 messages are stored", func() bool { return stored() >= 410 })
	response, err := http.Get("http://" + health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !strings.Contains(string(metrics), "\nmetip_connector_system_connected 1\n") {
		t.Errorf("metrics %s, %v", metrics, err)
	}
	_, count, _ := strings.Cut(string(metrics), "\nmetip_connector_published_total ")
	count, _, _ = strings.Cut(count, "\n")
	if n, err := strconv.Atoi(count); err != nil || n < 410 { // what the system gave twice counts twice
		t.Errorf("metrics say that %q messages were published", count)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	(&pullRun{PullHarness: h}).wantLeft(t, 0)
	if n := stored(); n != 410 {
		t.Errorf("%d messages are stored, and not each once", n)
	}
}
