package telemetry

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Meter sends the pod's metrics to the collector. A nil Meter sends nothing.
type Meter struct {
	*collector
	metrics prometheus.Gatherer
	every   time.Duration
	pod     attributes
	begun   string
}

// NewMeter of what is gathered; nil where no collector is to have it.
func NewMeter(o Options, metrics prometheus.Gatherer) (*Meter, error) {
	if o.Endpoint == "" || o.MetricsEvery == 0 {
		return nil, nil
	}
	c, err := collectorOf(&o, "metrics", "/v1/metrics")
	if err != nil {
		return nil, err
	}
	return &Meter{collector: c, metrics: metrics, every: o.MetricsEvery, pod: attributes{keyValues(o.resource())}, begun: unixNano(time.Now())}, nil
}

// Run until the context ends.
func (m *Meter) Run(ctx context.Context) {
	if m == nil {
		return
	}
	ticker := time.NewTicker(m.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			m.export(ctx)
		}
	}
}

// Close sends the last metrics, for no longer than the context lasts.
func (m *Meter) Close(ctx context.Context) {
	if m != nil {
		m.export(ctx)
		m.client.CloseIdleConnections()
	}
}

func (m *Meter) export(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	// What could be gathered goes out, whatever could not.
	families, err := m.metrics.Gather()
	if err != nil {
		m.log.Warn("some metrics could not be gathered", "error", err)
	}
	if len(families) > 0 {
		m.send(ctx, m.requestOf(families, time.Now()))
	}
}

// The messages of opentelemetry-proto (metrics/v1) that are needed, in their JSON form.
type (
	metricsRequest struct {
		ResourceMetrics []resourceMetrics `json:"resourceMetrics"`
	}
	resourceMetrics struct {
		Resource     attributes     `json:"resource"`
		ScopeMetrics []scopeMetrics `json:"scopeMetrics"`
	}
	scopeMetrics struct {
		Scope   scope    `json:"scope"`
		Metrics []metric `json:"metrics"`
	}
	metric struct {
		Name        string     `json:"name"`
		Description string     `json:"description,omitempty"`
		Gauge       *points    `json:"gauge,omitempty"`
		Sum         *sum       `json:"sum,omitempty"`
		Histogram   *histogram `json:"histogram,omitempty"`
		Summary     *points    `json:"summary,omitempty"`
	}
	points struct {
		DataPoints []point `json:"dataPoints"`
	}
	sum struct {
		points
		Temporality int  `json:"aggregationTemporality"`
		Monotonic   bool `json:"isMonotonic"`
	}
	histogram struct {
		points
		Temporality int `json:"aggregationTemporality"`
	}
	point struct {
		Attributes []keyValue `json:"attributes,omitempty"`
		Start      string     `json:"startTimeUnixNano,omitempty"`
		Time       string     `json:"timeUnixNano"`
		Value      *float64   `json:"asDouble,omitempty"`
		Count      string     `json:"count,omitempty"`
		Sum        *float64   `json:"sum,omitempty"`
		// BucketCounts of a histogram are one more than its ExplicitBounds.
		BucketCounts   []string   `json:"bucketCounts,omitempty"`
		ExplicitBounds []float64  `json:"explicitBounds,omitempty"`
		Quantiles      []quantile `json:"quantileValues,omitempty"`
	}
	quantile struct {
		Quantile float64 `json:"quantile"`
		Value    float64 `json:"value"`
	}
)

// cumulative: sums count from the start of the process.
const cumulative = 2

func (m *Meter) requestOf(families []*dto.MetricFamily, now time.Time) metricsRequest {
	at := unixNano(now)
	list := make([]metric, 0, len(families))
	for _, f := range families {
		out := metric{Name: f.GetName(), Description: f.GetHelp()}
		data := points{DataPoints: make([]point, 0, len(f.GetMetric()))}
		for _, v := range f.GetMetric() {
			if p, ok := pointOf(f.GetType(), v); ok {
				p.Time = at
				if f.GetType() != dto.MetricType_GAUGE {
					p.Start = m.begun
				}
				data.DataPoints = append(data.DataPoints, p)
			}
		}
		switch {
		case len(data.DataPoints) == 0:
			continue
		case f.GetType() == dto.MetricType_COUNTER:
			out.Sum = &sum{data, cumulative, true}
		case f.GetType() == dto.MetricType_HISTOGRAM:
			out.Histogram = &histogram{data, cumulative}
		case f.GetType() == dto.MetricType_SUMMARY:
			out.Summary = &data
		default:
			out.Gauge = &data
		}
		list = append(list, out)
	}
	return metricsRequest{[]resourceMetrics{{Resource: m.pod, ScopeMetrics: []scopeMetrics{{Scope: scope{Name: scopeName}, Metrics: list}}}}}
}

// pointOf one series; false where it has no value that JSON could hold.
func pointOf(kind dto.MetricType, v *dto.Metric) (point, bool) {
	out := point{Attributes: labels(v)}
	var value float64
	switch kind {
	case dto.MetricType_HISTOGRAM:
		h := v.GetHistogram()
		value = h.GetSampleSum()
		out.Count, out.Sum = strconv.FormatUint(h.GetSampleCount(), 10), &value
		below := uint64(0)
		for _, b := range h.GetBucket() {
			if math.IsInf(b.GetUpperBound(), 1) {
				break
			}
			out.ExplicitBounds = append(out.ExplicitBounds, b.GetUpperBound())
			out.BucketCounts = append(out.BucketCounts, strconv.FormatUint(b.GetCumulativeCount()-below, 10))
			below = b.GetCumulativeCount()
		}
		out.BucketCounts = append(out.BucketCounts, strconv.FormatUint(h.GetSampleCount()-below, 10))
	case dto.MetricType_SUMMARY:
		s := v.GetSummary()
		value = s.GetSampleSum()
		out.Count, out.Sum = strconv.FormatUint(s.GetSampleCount(), 10), &value
		for _, q := range s.GetQuantile() {
			if isFinite(q.GetValue()) {
				out.Quantiles = append(out.Quantiles, quantile{q.GetQuantile(), q.GetValue()})
			}
		}
	case dto.MetricType_COUNTER:
		value = v.GetCounter().GetValue()
		out.Value = &value
	case dto.MetricType_GAUGE:
		value = v.GetGauge().GetValue()
		out.Value = &value
	default:
		value = v.GetUntyped().GetValue()
		out.Value = &value
	}
	return out, isFinite(value)
}

func isFinite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func labels(v *dto.Metric) []keyValue {
	out := make([]keyValue, len(v.GetLabel()))
	for i, l := range v.GetLabel() {
		out[i] = keyValue{l.GetName(), value{String: l.Value}}
	}
	return out
}

func unixNano(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }
