package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

// Timing of checks: a system that has gone is noticed within checkEvery + checkTimeout, though nothing flows.
const (
	checkEvery   = 2500 * time.Millisecond
	checkTimeout = 4 * time.Second
	// checkFresh is how long one answer serves everybody who asks.
	checkFresh = 150 * time.Millisecond
)

// sinkRunner runs a sink: its destinations, and the checks of the system while nothing flows.
type sinkRunner struct {
	config  *contract.Config
	log     *slog.Logger
	conn    *connection
	replies *replies
	secrets *secrets
	metrics *sinkMetrics
	sink    sdk.Sink
	system  *systemState
	// enrichment is nil where no step asks a service.
	enrichment *enrichment
	// tracer is nil where nothing is traced.
	tracer  *telemetry.Tracer
	started time.Time
	changed func()
	// deliver ends when what is being delivered has to stop: later than the context that run is given.
	deliver      context.Context
	destinations []*destination
	// memory that the destinations share, for what they hold and for what is decoded.
	memory, bodies *shares
	// writes is when the system last confirmed a message.
	writes atomic.Int64

	checking sync.Mutex
	mu       sync.Mutex
	// checked is when the last check ended, and what it said.
	checked  time.Time
	checkErr error
}

// prepare the destinations.
func (s *sinkRunner) prepare(r registry) {
	s.memory, s.bodies = memoryShares(len(s.config.Sink.Routes))
	for _, route := range s.config.Sink.Routes {
		lanes := newLanes(s, route)
		s.destinations = append(s.destinations, lanes...)
		of := prometheus.Labels{"route": route.Name, "destination": route.Destination}
		r.gauge("metip_connector_in_flight", "Messages that the pod holds: pulled and not settled.", of, func() (n float64) {
			for _, d := range lanes {
				n += d.holding()
			}
			return n
		})
		r.gauge("metip_connector_oldest_seconds", "Age, since the broker stored it, of the oldest message that the pod holds; 0 while it holds none.",
			of, func() (age float64) {
				for _, d := range lanes {
					age = max(age, d.oldest())
				}
				return age
			})
		r.gauge("metip_connector_circuit_open", "1 while the destination waits because its system is unavailable.",
			of, func() (open float64) {
				for _, d := range lanes {
					open = max(open, d.waiting())
				}
				return open
			})
		for _, d := range lanes {
			if d.lane != nil {
				r.gauge("metip_connector_lane_active", "1 while this pod delivers the lane; of all pods, one does.", prometheus.Labels{
					"route": route.Name, "destination": route.Destination, "lane": strconv.Itoa(d.lane.index),
				}, d.lane.active)
			}
		}
	}
}

// holding is how many messages are held.
func (d *destination) holding() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return float64(len(d.held))
}

// waiting is 1 while the system is unavailable.
func (d *destination) waiting() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.circuit.open() {
		return 1
	}
	return 0
}

// run until ctx ends, then drain.
func (s *sinkRunner) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, d := range s.destinations {
		wg.Go(func() { d.run(ctx, s.deliver) })
	}
	s.watchSystem(ctx)
	wg.Wait()
}

// watchSystem checks the system now, while nothing flows, and when the Secrets change.
func (s *sinkRunner) watchSystem(ctx context.Context) {
	for ctx.Err() == nil {
		// A destination whose circuit is open checks by itself.
		if !s.isOpen() && time.Since(time.Unix(0, s.writes.Load())) > checkEvery {
			_ = s.check(ctx)
		}
		select {
		case <-ctx.Done():
		case <-s.secrets.Changed():
		case <-time.After(checkEvery):
		}
	}
}

func (s *sinkRunner) isOpen() bool {
	for _, d := range s.destinations {
		d.mu.Lock()
		open := d.circuit.open()
		d.mu.Unlock()
		if open {
			return true
		}
	}
	return false
}

// check the system; one at a time, and a fresh answer serves all.
func (s *sinkRunner) check(ctx context.Context) error {
	s.checking.Lock()
	defer s.checking.Unlock()
	s.mu.Lock()
	if !s.checked.IsZero() && time.Since(s.checked) < checkFresh {
		defer s.mu.Unlock()
		return s.checkErr
	}
	s.mu.Unlock()
	err := s.ask(ctx)
	if err != nil && ctx.Err() != nil {
		return err
	}
	s.mu.Lock()
	changed := s.checked.IsZero() || !sameState(s.checkErr, err)
	s.checked, s.checkErr = time.Now(), err
	s.mu.Unlock()
	if changed {
		s.changed()
	}
	return err
}

func (s *sinkRunner) ask(ctx context.Context) error { return askSystem(ctx, s.log, s.sink.Check) }

// askSystem runs a Check within its time. A panic is its error, and every error is an *sdk.UnavailableError.
func askSystem(ctx context.Context, log *slog.Logger, check func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			log.Error("the system's check panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("the connector panicked: %v", r))
		}
	}()
	err = check(ctx)
	var u *sdk.UnavailableError
	if err != nil && !errors.As(err, &u) {
		reason := contract.ReasonSystemError
		if errors.Is(err, context.DeadlineExceeded) {
			reason, err = contract.ReasonConnectionFailed, fmt.Errorf("no answer within %s: %w", checkTimeout, err)
		}
		err = sdk.Unavailable(reason, err)
	}
	return err
}

// routes that have a problem of their own, and the state of the system as all of them show it.
func (s *sinkRunner) routes() (routes []contract.RouteState) {
	var common, first problem
	open := 0
	for _, d := range s.destinations {
		p, failing := d.state()
		if n := len(routes); failing && (n == 0 || routes[n-1].Route != d.route.Name || routes[n-1].Destination != d.route.Destination) { // one for all lanes
			routes = append(routes, contract.RouteState{Route: d.route.Name, Destination: d.route.Destination, State: state(p.err, p.reason, p.since)})
		}
		d.mu.Lock()
		c := d.circuit.problem
		d.mu.Unlock()
		if c.err == nil || isEnrichment(c.err) { // a service's failure says nothing of the system
			continue
		}
		open++
		if first.err == nil || c.since.Before(first.since) {
			first = c
		}
		if c.reason != contract.ReasonSystemError && (common.err == nil || c.since.Before(common.since)) {
			common = c
		}
	}
	if common.err == nil && open == len(s.destinations) {
		common = first
	}
	s.judge(common.err)
	return routes
}

// judge the system: by what writes say, else by the last check.
func (s *sinkRunner) judge(writes error) {
	s.mu.Lock()
	checked, checkErr := s.checked, s.checkErr
	s.mu.Unlock()
	wrote := time.Unix(0, s.writes.Load())
	switch {
	case writes != nil:
		s.system.System(writes)
	case wrote.After(checked):
		s.system.System(nil)
	case !checked.IsZero():
		s.system.System(checkErr)
	}
}

// oldest is the age, in seconds, of the oldest message that is held.
func (d *destination) oldest() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	stored := int64(0)
	for id := range d.held {
		if stored == 0 || id.at < stored {
			stored = id.at
		}
	}
	if stored == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, stored)).Seconds())
}
