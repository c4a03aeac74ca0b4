package engine

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Outcomes of calls, as metrics name them.
const (
	outcomeAnswered  = "answered"
	outcomeCached    = "cached"
	outcomeError     = "error"
	outcomeProblem   = "problem"
	outcomeTimeout   = "timeout"
	outcomeCancelled = "cancelled"
)

// callerMetrics are those of a source whose requests are answered.
type callerMetrics struct {
	requests, refused *prometheus.CounterVec
	latency           *prometheus.HistogramVec
	unrouted          prometheus.Counter
	inFlight          prometheus.Gauge
}

// callMetrics are callerMetrics of one Route, looked up once.
type callMetrics struct {
	requests, refused *prometheus.CounterVec
	latency           prometheus.Observer
}

func newCallerMetrics(r registry) *callerMetrics {
	m := &callerMetrics{
		requests: r.counters("metip_connector_requests_total", "Requests that a Route has answered, by outcome: answered (the system's answer below 500), error (the system's from 500), problem (a hop's), timeout, cancelled.", "route", "outcome"),
		refused:  r.counters("metip_connector_requests_refused_total", "Requests that no pod of the service took at the last try, by reason: busy, unavailable, suspended.", "route", "reason"),
		latency:  r.histograms("metip_connector_request_seconds", "Time from a request's arrival to its answer.", latencies, "route"),
		unrouted: r.counter("metip_connector_requests_unrouted_total", "Requests that no Route took."),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "metip_connector_requests_in_flight", Help: "Requests that wait for their answer."}),
	}
	r.MustRegister(m.inFlight)
	return m
}

func (m *callerMetrics) route(name string) *callMetrics {
	by := prometheus.Labels{"route": name}
	return &callMetrics{requests: m.requests.MustCurryWith(by), refused: m.refused.MustCurryWith(by), latency: m.latency.WithLabelValues(name)}
}

// observe the end of a request whose caller's context is ctx.
func (m *callMetrics) observe(ctx context.Context, a *sdk.Answer, took time.Duration) {
	outcome := outcomeAnswered
	switch {
	case ctx.Err() != nil:
		outcome = outcomeCancelled
	case a.Hop != "" && a.Status == 504:
		outcome = outcomeTimeout
	case a.Hop != "":
		outcome = outcomeProblem
	case a.Status >= 500:
		outcome = outcomeError
	}
	m.requests.WithLabelValues(outcome).Inc()
	m.latency.Observe(took.Seconds())
}

// serviceMetrics are those of a service.
type serviceMetrics struct {
	calls, refused *prometheus.CounterVec
	latency        prometheus.Histogram
	inFlight       prometheus.Gauge
}

func newServiceMetrics(r registry, c *contract.Service) *serviceMetrics {
	m := &serviceMetrics{
		calls:    r.counters("metip_connector_calls_total", "Calls that have ended, by outcome: answered (the system's answer below 500), error (the system's from 500), cached, problem (no answer of the system), timeout, cancelled.", "outcome"),
		refused:  r.counters("metip_connector_calls_refused_total", "Calls that were not begun, by reason: busy, unavailable, suspended, malformed.", "reason"),
		latency:  r.histogram("metip_connector_call_seconds", "Time from a call's arrival to its answer.", latencies),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "metip_connector_calls_in_flight", Help: "Calls that are being made."}),
	}
	r.MustRegister(m.inFlight)
	r.gauge("metip_connector_calls_limit", "Calls that the pod makes at the same time at most.", nil, func() float64 { return float64(c.MaxConcurrent) })
	return m
}
