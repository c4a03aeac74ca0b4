package engine

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

// otlpSpan is what the tests look at in a span.
type otlpSpan struct {
	TraceID      string `json:"traceId"`
	SpanID       string `json:"spanId"`
	ParentSpanID string `json:"parentSpanId"`
	Name         string `json:"name"`
}

// collector takes OTLP's JSON and keeps the spans, and the metrics as they came.
type collector struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []otlpSpan
	metrics string
}

func startCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			ResourceSpans []struct {
				ScopeSpans []struct {
					Spans []otlpSpan `json:"spans"`
				} `json:"scopeSpans"`
			} `json:"resourceSpans"`
		}
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(raw, &body)
		}
		if err != nil {
			t.Error("a pod sent spans that cannot be read:", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.URL.Path == "/v1/metrics" {
			c.metrics += string(raw)
		}
		for _, resource := range body.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) named(name string) (otlpSpan, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			return s, true
		}
	}
	return otlpSpan{}, false
}

// TestSpansFollowAMessage: from the caller's trace over the source and the bus to the request that the sink makes.
func TestSpansFollowAMessage(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	c := startCollector(t)
	traces := telemetry.Options{Endpoint: c.URL, MetricsEvery: time.Hour} // and once when the pod ends
	seen := make(chan string, 1)
	f := newFakeSink()
	f.write = func(d *sdk.Delivery) error { seen <- d.Headers[contract.HeaderTraceParent]; return nil }
	o := sinkPod(t, s, f, 10*time.Second, routeConfig("r", "d"))
	o.telemetry = traces
	sink := startPod(t, o)
	fs := newFakeSource()
	source := startPod(t, podOptions{
		config: sourceConfig(s), system: fs.system(), telemetry: traces, creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), time.Hour),
	})
	m := event("A-1")
	m.Headers = map[string]string{contract.HeaderTraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	if err := (<-fs.bus).Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	passed := <-seen
	source.drain()
	sink.drain()
	var publish, deliver otlpSpan
	within(t, 10*time.Second, "both spans have arrived", func() (ok bool) {
		if publish, ok = c.named("publish"); ok {
			deliver, ok = c.named("deliver r/d")
		}
		return ok
	})
	if publish.TraceID != "0af7651916cd43dd8448eb211c80319c" || publish.ParentSpanID != "b7ad6b7169203331" {
		t.Errorf("publishing does not belong to the caller's trace: %+v", publish)
	}
	if deliver.TraceID != publish.TraceID || deliver.ParentSpanID != publish.SpanID {
		t.Errorf("delivering does not follow publishing: %+v after %+v", deliver, publish)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{"metip_connector_published_total", "metip_connector_delivered_total", "metip_connector_end_to_end_seconds"} {
		if !strings.Contains(c.metrics, `"name":"`+name+`"`) {
			t.Errorf("the collector has no %s", name)
		}
	}
	if want := "00-" + deliver.TraceID + "-" + deliver.SpanID + "-01"; passed != want {
		t.Errorf("the system got %q, want %q", passed, want)
	}
}
