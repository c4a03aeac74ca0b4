package engine

import (
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/metip/metip/connectors/contract"
)

// latencies of publishing and of delivery, in seconds.
var latencies = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600}

// batchSizes in messages.
var batchSizes = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}

// registry of one pod's metrics. Labels have few values: a Route, a destination, a reason.
type registry struct{ *prometheus.Registry }

func newRegistry(c *contract.Config, pod string) registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	system := ""
	switch {
	case c.Source != nil:
		system = c.Source.System.Type
	case c.Sink != nil:
		system = c.Sink.System.Type
	case c.Service != nil:
		system = c.Service.System.Type
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "metip_connector_info", Help: "Who the pod is; always 1."},
		[]string{"namespace", "connector", "integration", "system", "pod", "config", "version"})
	info.WithLabelValues(c.Connector.Namespace, c.Connector.Name, c.Connector.Integration, system, pod, c.Hash, version).Set(1)
	r.MustRegister(info)
	return registry{r}
}

func (r registry) handler() http.Handler {
	return promhttp.HandlerFor(r.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

func (r registry) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.MustRegister(c)
	return c
}

func (r registry) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.MustRegister(c)
	return c
}

func (r registry) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	r.MustRegister(h)
	return h
}

func (r registry) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.MustRegister(h)
	return h
}

func (r registry) gauge(name, help string, labels prometheus.Labels, f func() float64) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
}

func (r registry) counterFunc(name, help string, f func() float64) {
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
}

// sourceMetrics are those of a source.
type sourceMetrics struct {
	received, published, duplicates prometheus.Counter
	keyless                         prometheus.Counter
	claims, claimBytes              prometheus.Counter
	latency, batch                  prometheus.Histogram
	refusals                        *prometheus.CounterVec
}

func newSourceMetrics(r registry) *sourceMetrics {
	return &sourceMetrics{
		received:   r.counter("metip_connector_received_total", "Messages that the system handed over to be published."),
		published:  r.counter("metip_connector_published_total", "Messages that the broker confirmed as stored, those stored before included."),
		duplicates: r.counter("metip_connector_duplicates_total", "Published messages that the broker had stored before."),
		keyless:    r.counter("metip_connector_keyless_total", "Messages for which the source's partitionKey yielded nothing."),
		claims:     r.counter("metip_connector_claims_written_total", "Bodies that were stored as claim checks."),
		claimBytes: r.counter("metip_connector_claims_written_bytes_total", "Bytes of the bodies that were stored as claim checks."),
		latency:    r.histogram("metip_connector_publish_seconds", "Time from the system handing over a message (or a batch of its own) to the broker's confirmation.", latencies),
		batch:      r.histogram("metip_connector_publish_batch_messages", "Messages in each atomic batch; messages published singly are not counted.", batchSizes),
		refusals:   r.counters("metip_connector_refused_total", "Messages that were not accepted, by reason: invalid, schema, full, suspended, broker, cancelled.", "reason"),
	}
}

func (m *sourceMetrics) refused(reason string, n int) {
	m.refusals.WithLabelValues(reason).Add(float64(n))
}

// sinkMetrics are those of a sink, for all its destinations.
type sinkMetrics struct {
	delivered, replayed, filtered, retried, redelivered *prometheus.CounterVec
	dead, parts                                         *prometheus.CounterVec
	latency, write, batch                               *prometheus.HistogramVec
	claims, claimBytes                                  *prometheus.CounterVec
}

func newSinkMetrics(r registry) *sinkMetrics {
	by := []string{"route", "destination"}
	return &sinkMetrics{
		delivered:   r.counters("metip_connector_delivered_total", "Messages that the system confirmed.", by...),
		replayed:    r.counters("metip_connector_replayed_total", "Messages that the system confirmed and a Replay had brought; they count as delivered too.", by...),
		filtered:    r.counters("metip_connector_filtered_total", "Messages that a filter or a transform let go.", by...),
		retried:     r.counters("metip_connector_retried_total", "Attempts that failed and are to be made again.", by...),
		redelivered: r.counters("metip_connector_redelivered_total", "Messages that the broker delivered more than once.", by...),
		dead:        r.counters("metip_connector_dead_lettered_total", "Messages that the dead-letter stream confirmed, by reason.", append(by, "reason")...),
		parts:       r.counters("metip_connector_parts_total", "Parts of split messages, by what became of them: delivered, filtered, failed.", append(by, "outcome")...),
		claims:      r.counters("metip_connector_claims_read_total", "Bodies that were read whole by their claim checks; one that is tried again counts again.", by...),
		claimBytes:  r.counters("metip_connector_claims_read_bytes_total", "Bytes that were read by claim checks.", by...),
		latency:     r.histograms("metip_connector_end_to_end_seconds", "Time from the source accepting a message to the system confirming it.", latencies, by...),
		write:       r.histograms("metip_connector_write_seconds", "Time that the system took for one batch.", latencies, by...),
		batch:       r.histograms("metip_connector_write_batch_messages", "Messages in each batch that was written to the system.", batchSizes, by...),
	}
}

// destinationMetrics are sinkMetrics of one destination, looked up once.
type destinationMetrics struct {
	delivered, replayed, filtered, retried, redelivered prometheus.Counter
	dead, parts                                         *prometheus.CounterVec
	latency, write, batch                               prometheus.Observer
	// claims of all destinations: the series of one are made when it reads its first.
	claims             *sinkMetrics
	route, destination string
}

// readClaim counts a piece of a body that was read by its claim check.
func (m *destinationMetrics) readClaim(bytes int, whole bool) {
	m.claims.claimBytes.WithLabelValues(m.route, m.destination).Add(float64(bytes))
	if whole {
		m.claims.claims.WithLabelValues(m.route, m.destination).Inc()
	}
}

func (m *sinkMetrics) destination(route, destination string) *destinationMetrics {
	return &destinationMetrics{
		delivered: m.delivered.WithLabelValues(route, destination), replayed: m.replayed.WithLabelValues(route, destination), filtered: m.filtered.WithLabelValues(route, destination),
		retried: m.retried.WithLabelValues(route, destination), redelivered: m.redelivered.WithLabelValues(route, destination),
		dead:    m.dead.MustCurryWith(prometheus.Labels{"route": route, "destination": destination}),
		parts:   m.parts.MustCurryWith(prometheus.Labels{"route": route, "destination": destination}),
		latency: m.latency.WithLabelValues(route, destination), write: m.write.WithLabelValues(route, destination),
		batch:  m.batch.WithLabelValues(route, destination),
		claims: m, route: route, destination: destination,
	}
}
