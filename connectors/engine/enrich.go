package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// A step enrich asks a service about a message, or looks something up in a table, in the pod that runs the Route's steps. The messages of a batch are asked for together. While the
// service, or the broker, does not answer, the destination's circuit is open as if its own system were away: messages wait, nothing more is pulled, and one at a
// time is tried.

const (
	// enrichCalls of one step that a pod makes at a time.
	enrichCalls = 32
	// enrichHeld is what all answers that are being read may hold, in bytes.
	enrichHeld = 16 << 20
	// enrichCacheBytes of all caches of a pod.
	enrichCacheBytes = 16 << 20
	// longestPause before a service that is busy is asked again.
	longestPause = 250 * time.Millisecond
	// maxHopDetail of what a hop says, in an error.
	maxHopDetail = 160
)

// enrichError: a service has not answered. The destination's system has no part in it.
type enrichError struct {
	by *enricher
	// answers that the step had been given when this one failed.
	answers int64
	// refused: the call was not begun, and the message is not to blame.
	refused bool
	err     error
}

func (e *enrichError) Error() string { return e.err.Error() }
func (e *enrichError) Unwrap() error { return e.err }

// isEnrichment tells failures of a service that a step asks.
func isEnrichment(err error) bool {
	var e *enrichError
	return errors.As(err, &e)
}

// isRefusal tells those that are never a message's own fault.
func isRefusal(err error) bool {
	var e *enrichError
	return errors.As(err, &e) && e.refused
}

// enrichment is what the steps of a pod have in common that ask services.
type enrichment struct {
	// caller is nil where only tables are looked into.
	caller          *caller
	conn            *connection
	outcomes        *prometheus.CounterVec
	latency         *prometheus.HistogramVec
	cacheBytes      int64
	namespace, self string
}

// newEnrichment for the Routes of a sink; nil where none asks.
func newEnrichment(e *Engine) (*enrichment, error) {
	asking, calling, caching := 0, 0, 0
	for _, r := range e.Config.Sink.Routes {
		for _, s := range r.Steps {
			if s.Enrich != nil {
				asking++
				if s.Enrich.Service != "" {
					calling++
				}
				if s.Enrich.Cache != nil {
					caching++
				}
			}
		}
	}
	if asking == 0 {
		return nil, nil
	}
	self := e.Config.Connector.Namespace + "/" + e.Config.Connector.Name
	out := &enrichment{
		conn:       e.conn,
		outcomes:   e.registry.counters("metip_connector_enriched_total", "Messages that a step enrich dealt with, by outcome: answered, cached, missing, unavailable, failed.", "route", "destination", "outcome"),
		latency:    e.registry.histograms("metip_connector_enrich_seconds", "Time that a service, or the broker, took to answer a step enrich.", latencies, "route", "destination"),
		cacheBytes: enrichCacheBytes / int64(max(1, caching)),
		namespace:  e.Config.Connector.Namespace, self: self,
	}
	if calling == 0 {
		return out, nil
	}
	all, err := newAnswers(e.conn)
	if err != nil {
		return nil, err
	}
	all.limit = enrichHeld
	out.caller = &caller{
		config: e.Config, conn: e.conn, answers: all, log: e.Log, tracer: e.tracer, self: self, started: time.Now(), changed: e.reports.changed,
	}
	return out, nil
}

// enricher is a step enrich of one destination. It is safe for concurrent use.
type enricher struct {
	*steps.Enrich
	of *enrichment
	// name for errors: the service, or the table.
	name string
	// table is nil where a service is asked, and route where a table is.
	table    *lookup
	route    *callRoute
	timeout  time.Duration
	cache    *callCache
	calls    chan struct{}
	outcomes *prometheus.CounterVec
	latency  prometheus.Observer
	// answers that it has given, whatever they say.
	answers atomic.Int64
}

func (n *enrichment) step(r *contract.Route, s *contract.Enrich, of *steps.Enrich) *enricher {
	by := prometheus.Labels{"route": r.Name, "destination": r.Destination}
	e := &enricher{
		Enrich: of, of: n, name: "service " + s.Service, timeout: time.Duration(s.Timeout), calls: make(chan struct{}, enrichCalls),
		outcomes: n.outcomes.MustCurryWith(by), latency: n.latency.With(by),
	}
	if s.Table != "" {
		e.name, e.table = "table "+s.Table, newLookup(n, r.Integration, s.Table)
	} else {
		e.route = &callRoute{
			Call:    contract.Call{Route: r.Name, Integration: r.Integration, Service: s.Service},
			subject: contract.ServiceSubject(n.namespace, r.Integration, s.Service),
			cancel:  contract.CancelSubject(n.namespace, r.Integration, s.Service),
		}
	}
	if c := s.Cache; c != nil {
		e.cache = newCallCache(contract.Cache{TTL: c.TTL, MaxBytes: n.cacheBytes})
		e.cache.maxEntries = c.Entries
	}
	return e
}

// question that a message makes: a request to a service, or a key to look up, and what an answer to it is kept under.
type question struct {
	request *sdk.Request
	key     string
	cached  cacheKey
}

func (e *enricher) question(m *sdk.Message) (q question, err error) {
	if e.table != nil {
		if q.key, err = e.Key(m); err == nil && e.cache != nil {
			q.cached = sha256.Sum256([]byte(q.key))
		}
		return q, err
	}
	if q.request, err = e.Request(m); err == nil && e.cache != nil {
		q.cached = enrichKey(q.request)
	}
	return q, err
}

// Apply implements steps.Step. An *enrichError is of the service or the broker, and unless it is of class Unavailable, of this message alone; any other error is
// the message's own.
func (e *enricher) Apply(ctx context.Context, m *sdk.Message) (bool, error) {
	q, err := e.question(m)
	if err != nil {
		return false, e.failed(err)
	}
	if e.cache != nil {
		if kept := e.cache.get(q.cached, time.Now()); kept != nil {
			if err := e.Merge(m, kept); err != nil {
				return false, e.failed(err)
			}
			e.outcomes.WithLabelValues(outcomeCached).Inc()
			return true, nil
		}
	}
	answers := e.answers.Load()
	a, err := e.ask(ctx, m, q)
	if err != nil {
		return false, err
	}
	defer a.Close()
	failure := e.judge(a)
	if failure != nil {
		failure = e.away(failure, answers, a.Hop != "" && a.Status == http.StatusServiceUnavailable)
		e.outcomes.WithLabelValues("unavailable").Inc()
		return false, failure
	}
	e.answers.Add(1)
	missing := a.Hop == "" && (a.Status == http.StatusNotFound || a.Status == http.StatusGone)
	switch {
	case missing && e.HasDefault():
		if err := e.Default(m); err != nil {
			return false, e.failed(err)
		}
		e.outcomes.WithLabelValues("missing").Inc()
		return true, nil
	case missing:
		e.outcomes.WithLabelValues("missing").Inc()
		return false, e.unknown(a)
	case a.Hop != "" || a.Status/100 != 2:
		return false, e.failed(e.said(a))
	case len(a.Data) > contract.MaxEnrichment:
		return false, e.failed(fmt.Errorf("the answer of %s has %d bytes, and at most %d are taken", e.name, len(a.Data), contract.MaxEnrichment))
	}
	if err := e.Merge(m, a); err != nil {
		return false, e.failed(fmt.Errorf("%s: %w", e.name, err))
	}
	if e.cache != nil {
		kept := &sdk.Answer{Status: http.StatusOK}
		kept.Format, kept.ContentType, kept.Data = a.Format, a.ContentType, a.Data
		e.cache.put(q.cached, kept, time.Now())
	}
	e.outcomes.WithLabelValues(outcomeAnswered).Inc()
	return true, nil
}

func (e *enricher) failed(err error) error {
	e.outcomes.WithLabelValues("failed").Inc()
	return err
}

// unknown: what the message asks for is not there.
func (e *enricher) unknown(a *sdk.Answer) error {
	if e.table != nil {
		return fmt.Errorf("%s has no entry for the key of the message, and the step has no default", e.name)
	}
	return fmt.Errorf("%s does not know what the message asks for (%s), and the step has no default", e.name, statusName(a.Status))
}

// ask the service, or the table. The error is the context's, whose end is not the call's but the pod's, or that the broker is away.
func (e *enricher) ask(ctx context.Context, m *sdk.Message, q question) (*sdk.Answer, error) {
	select {
	case e.calls <- struct{}{}:
		defer func() { <-e.calls }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.table != nil {
		return e.look(ctx, q.key)
	}
	r := q.request
	for _, name := range []string{contract.HeaderTraceParent, contract.HeaderTraceState, "marking"} {
		if v := m.Headers[name]; v != "" {
			r.Headers[name] = v
		}
	}
	limited, stop := context.WithTimeout(ctx, e.timeout)
	defer stop()
	k := e.of.caller
	span := k.tracer.Call(r.Headers[contract.HeaderTraceParent], r.Headers[contract.HeaderTraceState], e.route.Service, false)
	if parent := span.TraceParent(); parent != "" {
		r.Headers[contract.HeaderTraceParent] = parent
	}
	begun := time.Now()
	a := e.insist(limited, r)
	endCall(span, a)
	if err := ctx.Err(); err != nil {
		a.Close()
		return nil, err
	}
	e.latency.Observe(time.Since(begun).Seconds())
	return a, nil
}

// insist while all pods of the service are busy, until the time is up: what waits here is what makes this pod ask no more than they can take.
func (e *enricher) insist(ctx context.Context, r *sdk.Request) *sdk.Answer {
	for pause := refusedPause; ; pause = min(2*pause, longestPause) {
		a, refused := e.of.caller.send(ctx, e.route, r)
		if refused != contract.RefusedBusy {
			return a
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
			if ctx.Err() == nil {
				a.Close()
				continue
			}
		case <-ctx.Done():
		}
		return a
	}
}

// judge an answer: nil where it is one, whatever it says of this message; else why it has to be asked for again, as a sink judges its system.
func (e *enricher) judge(a *sdk.Answer) error {
	switch s := a.Status; {
	case a.Hop != "" && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests:
		return nil
	case a.Hop != "", s == http.StatusBadGateway, s == http.StatusServiceUnavailable, s == http.StatusGatewayTimeout:
		return sdk.Unavailable(contract.ReasonConnectionFailed, e.said(a))
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, e.said(a))
	case s == http.StatusProxyAuthRequired, s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s >= 500:
		if seconds, err := strconv.ParseInt(first(a.Header, "retry-after"), 10, 32); err == nil && seconds > 0 {
			return &sdk.RetryAfterError{Err: e.said(a), After: time.Duration(seconds) * time.Second}
		}
		return e.said(a)
	}
	return nil
}

// away marks a failure as the service's. What an error says of its class stays visible.
func (e *enricher) away(err error, answers int64, refused bool) error {
	return &enrichError{by: e, answers: answers, refused: refused, err: err}
}

// said is what an answer says, of a hop in its own words. What the system says may hold what the message asks for, and is left out.
func (e *enricher) said(a *sdk.Answer) error {
	if a.Hop == "" {
		return fmt.Errorf("service %s answers %s", e.route.Service, statusName(a.Status))
	}
	var p problemJSON
	_ = json.Unmarshal(a.Data, &p) // a hop that says nothing
	detail := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, p.Detail)
	if len(detail) > maxHopDetail {
		detail = strings.ToValidUTF8(detail[:maxHopDetail], "") + "..."
	}
	if a.Hop == e.of.self {
		return fmt.Errorf("service %s: %s", e.route.Service, detail)
	}
	return fmt.Errorf("service %s: %s from %s: %s", e.route.Service, statusName(a.Status), a.Hop, detail)
}

func statusName(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// enrichKey of a request: a digest of all that the step has put into it.
func enrichKey(r *sdk.Request) cacheKey {
	h := sha256.New()
	var n [8]byte
	part := func(s string) { // its length first, so that no two requests run together
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		_, _ = h.Write(n[:])
		_, _ = h.Write([]byte(s))
	}
	for _, s := range []string{r.Method, r.Path, r.Query, string(r.Data)} {
		part(s)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		part(name)
		part(r.Header[name][0])
	}
	return cacheKey(h.Sum(nil))
}

// enrichStep takes the place of a compiled step that asks.
func (d *destination) enrichStep(s *contract.Step, c steps.Step) steps.Step {
	of, ok := c.(*steps.Enrich)
	if !ok || d.sink.enrichment == nil {
		return c
	}
	d.enriches = true
	return d.sink.enrichment.step(&d.route, s.Enrich, of)
}

// prepareTogether prepares the messages of a batch, several at a time, and gives those that are ready in their order. Once a service turns out to
// be away, those that have not been asked for go back to their places.
func (d *destination) prepareTogether(batch []*held) []*held {
	ready := make([]bool, len(batch))
	var group errgroup.Group
	group.SetLimit(enrichCalls)
	for i, h := range batch {
		group.Go(func() error {
			d.mu.Lock()
			away := d.circuit.open() || d.stopping
			if away {
				d.requeue(h)
			}
			d.mu.Unlock()
			ready[i] = !away && d.prepare(h)
			return nil
		})
	}
	_ = group.Wait() // each message has its own outcome
	out := batch[:0]
	for i, h := range batch {
		if ready[i] {
			out = append(out, h)
		}
	}
	return out
}

// notEnriched is what becomes of a message that a service has not answered.
func (d *destination) notEnriched(h *held, err error) {
	d.asked.Add(1) // for who probes: this message has been tried
	if d.cancelled(err) {
		d.mu.Lock()
		d.giveBack(h)
		d.mu.Unlock()
		return
	}
	if d.expired(h) {
		return
	}
	d.log.Debug("a message waits for a service", "id", h.message.ID, "sequence", h.seq, "error", err)
	var unavailable *sdk.UnavailableError
	if errors.As(err, &unavailable) {
		d.unavailable(h, err)
		return
	}
	d.retry(h, err)
}

// cancelled: a call was broken off because the pod ends.
func (d *destination) cancelled(err error) bool {
	return d.enriches && errors.Is(err, context.Canceled) && d.sink.deliver.Err() != nil
}

// notEnriched is what becomes of a part that a service has not answered.
func (a *attempt) notEnriched(d *destination, i int, err error) {
	d.asked.Add(1)
	var unavailable *sdk.UnavailableError
	switch {
	case d.cancelled(err):
		a.over = true
	case errors.As(err, &unavailable):
		a.away, a.over = err, true
	default:
		a.again(d, i, err)
	}
}

// enriched closes the circuit, if it was a service that opened it and has answered since.
func (d *destination) enriched() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var e *enrichError
	if errors.As(d.circuit.err, &e) && e.by.answers.Load() > e.answers {
		d.circuit.close()
	}
}
