package telemetry

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metip/metip/connectors/contract"
)

func meter(t *testing.T, endpoint string, every time.Duration, r prometheus.Gatherer) *Meter {
	t.Helper()
	config := &contract.Config{Connector: contract.Connector{Namespace: "met", Name: "custody", Integration: "default"}}
	m, err := NewMeter(Options{
		Endpoint: endpoint, MetricsEvery: every, Config: config, Pod: "custody-1", Log: slog.New(slog.DiscardHandler), Dial: (&net.Dialer{}).DialContext,
	}, r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMetricsReachTheCollector: each kind in OTLP's terms, and again and again.
func TestMetricsReachTheCollector(t *testing.T) {
	bodies := make(chan []byte)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/metrics" {
			t.Error(r.URL.Path)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		select {
		case bodies <- body:
		case <-r.Context().Done():
		}
	}))
	defer collector.Close()
	r := prometheus.NewRegistry()
	delivered := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "delivered_total", Help: "Messages."}, []string{"route"})
	depth := prometheus.NewGauge(prometheus.GaugeOpts{Name: "depth"})
	unknown := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "unknown"}, math.NaN)
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", Buckets: []float64{0.1, 1}})
	pauses := prometheus.NewSummary(prometheus.SummaryOpts{Name: "pauses", Objectives: map[float64]float64{0.5: 0.05}})
	r.MustRegister(delivered, depth, unknown, took, pauses)
	delivered.WithLabelValues("arrests").Add(3)
	depth.Set(-2)
	for _, v := range []float64{0.05, 0.06, 0.5, 7} {
		took.Observe(v)
	}
	m := meter(t, collector.URL, 10*time.Millisecond, r)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go m.Run(ctx)
	<-bodies
	var got struct {
		ResourceMetrics []struct {
			Resource     any `json:"resource"`
			ScopeMetrics []struct {
				Metrics []map[string]any `json:"metrics"`
			} `json:"scopeMetrics"`
		} `json:"resourceMetrics"`
	}
	raw := <-bodies
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `{"key":"service.name","value":{"stringValue":"custody"}}`) {
		t.Errorf("whose metrics are they? %s", raw)
	}
	metrics := got.ResourceMetrics[0].ScopeMetrics[0].Metrics
	for _, one := range metrics {
		for _, kind := range []string{"sum", "gauge", "histogram", "summary"} {
			data, ok := one[kind].(map[string]any)
			if !ok {
				continue
			}
			p := data["dataPoints"].([]any)[0].(map[string]any)
			if at := p["timeUnixNano"]; at == nil || kind != "gauge" && p["startTimeUnixNano"] == nil {
				t.Errorf("%s says not when: %v", one["name"], p)
			}
			delete(p, "timeUnixNano")
			delete(p, "startTimeUnixNano")
		}
	}
	point := func(m map[string]any) []any { return []any{m} }
	want := []map[string]any{
		{"name": "delivered_total", "description": "Messages.", "sum": map[string]any{
			"aggregationTemporality": 2., "isMonotonic": true, "dataPoints": point(map[string]any{
				"asDouble": 3., "attributes": []any{map[string]any{"key": "route", "value": map[string]any{"stringValue": "arrests"}}},
			}),
		}},
		{"name": "depth", "gauge": map[string]any{"dataPoints": point(map[string]any{"asDouble": -2.})}},
		{"name": "pauses", "summary": map[string]any{"dataPoints": point(map[string]any{"count": "0", "sum": 0.})}},
		{"name": "took_seconds", "histogram": map[string]any{"aggregationTemporality": 2., "dataPoints": point(map[string]any{
			"count": "4", "sum": 7.61, "explicitBounds": []any{0.1, 1.}, "bucketCounts": []any{"2", "1", "1"},
		})}},
	}
	if diff := cmp.Diff(want, metrics); diff != "" {
		t.Error(diff)
	}
}

// TestLastMetrics are sent when the pod ends, and nobody waits for a collector that is away.
func TestLastMetrics(t *testing.T) {
	posts := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { posts <- r.Method }))
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "delivered_total"}))
	m := meter(t, collector.URL, time.Hour, r)
	m.Close(t.Context())
	if got := <-posts; got != http.MethodPost {
		t.Error(got)
	}
	collector.Close()
	m.Close(t.Context())
	if !m.failing.Load() {
		t.Error("it is not noticed that the collector is away")
	}
}

func TestWithoutMetrics(t *testing.T) {
	for _, o := range []Options{{}, {Endpoint: "http://127.0.0.1:1"}, {MetricsEvery: time.Second}} {
		m, err := NewMeter(o, prometheus.NewRegistry())
		if m != nil || err != nil {
			t.Error(m, err)
		}
		m.Run(t.Context())
		m.Close(t.Context())
	}
}
