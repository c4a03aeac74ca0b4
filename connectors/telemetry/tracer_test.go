package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
)

func tracer(t *testing.T, endpoint string, ratio float64) *Tracer {
	t.Helper()
	config := &contract.Config{Connector: contract.Connector{Namespace: "met", Name: "custody", Integration: "default"}}
	tr, err := New(Options{Endpoint: endpoint, Ratio: ratio, Config: config, Pod: "custody-1", Log: slog.New(slog.DiscardHandler), Dial: (&net.Dialer{}).DialContext})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

const (
	sampled   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

// TestSpansReachTheCollector: as OTLP's JSON, children of the message's own context.
func TestSpansReachTheCollector(t *testing.T) {
	bodies := make(chan []byte, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" {
			t.Error(r.URL.Path, r.Header)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies <- body
	}))
	defer collector.Close()
	tr := tracer(t, collector.URL, 0)
	published := tr.Publish(sampled, "a=b", "evt.met.default.custody.3.arrest", "A-1")
	delivered := tr.Deliver(published.TraceParent(), "", "to-court", "db", "A-1", 2)
	delivered.End(errors.New("the database is down"))
	published.End(nil)
	tr.Publish(unsampled, "", "evt.x", "A-2").End(nil)
	tr.Publish("", "", "evt.x", "A-3").End(nil)
	tr.Close(t.Context())
	var got request
	if err := json.Unmarshal(<-bodies, &got); err != nil {
		t.Fatal(err)
	}
	spans := got.ResourceSpans[0].ScopeSpans[0].Spans
	if len(spans) != 2 {
		t.Fatalf("%d spans, want the two that are sampled: %+v", len(spans), spans)
	}
	d, p := spans[0], spans[1]
	if p.TraceID != "0af7651916cd43dd8448eb211c80319c" || p.ParentSpanID != "b7ad6b7169203331" || p.Kind != 4 || p.Status != nil || p.TraceState != "a=b" {
		t.Errorf("%+v", p)
	}
	if d.TraceID != p.TraceID || d.ParentSpanID != p.SpanID || d.Kind != 5 || d.Name != "deliver to-court/db" {
		t.Errorf("%+v", d)
	}
	if diff := cmp.Diff(&status{Code: 2, Message: "the database is down"}, d.Status); diff != "" {
		t.Error(diff)
	}
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"key":"service.name","value":{"stringValue":"custody"}}`, `{"key":"metip.attempt","value":{"intValue":"2"}}`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("no %s in %s", want, raw)
		}
	}
}

// TestSampling: what came without a context is sampled by the ratio, what came with one as it says.
func TestSampling(t *testing.T) {
	tr := tracer(t, "http://127.0.0.1:1", 1)
	defer tr.Close(context.Background())
	for parent, flags := range map[string]string{"": "-01", sampled: "-01", unsampled: "-00"} {
		got := tr.Publish(parent, "", "s", "id").TraceParent()
		if len(got) != 55 || !strings.HasSuffix(got, flags) {
			t.Errorf("of %q came %q, want %s", parent, got, flags)
		}
	}
}

// TestCollectorAway: spans are dropped and counted; nobody waits.
func TestCollectorAway(t *testing.T) {
	tr := tracer(t, "http://127.0.0.1:1", 1)
	tr.Publish("", "", "s", "id").End(nil)
	tr.Close(t.Context())
	if tr.Dropped() != 1 {
		t.Error(tr.Dropped(), "dropped")
	}
}

func TestWithoutCollector(t *testing.T) {
	tr, err := New(Options{Config: &contract.Config{}})
	if tr != nil || err != nil {
		t.Fatal(tr, err)
	}
	s := tr.Publish(sampled, "", "s", "id")
	s.End(nil)
	tr.Close(t.Context())
	if s.TraceParent() != "" || tr.Dropped() != 0 {
		t.Error("a span without a collector")
	}
	if n := testing.AllocsPerRun(100, func() { tr.Deliver(sampled, "", "r", "d", "id", 1).End(nil) }); n > 0 {
		t.Error(n, "allocations")
	}
	if _, err := New(Options{Endpoint: "collector:4318", Config: &contract.Config{}}); err == nil {
		t.Error("an address without a scheme")
	}
}
