package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/telemetry"
)

// Timing of the end.
const (
	defaultGrace = 25 * time.Second
	// listenerLinger is how long a listener stays open after the pod has said that it is not ready, so that nobody is refused who
	// has not heard it yet.
	listenerLinger = 3 * time.Second
)

// Options of an Engine.
type Options struct {
	Config *contract.Config
	System sdk.System
	// Pod is the pod's name.
	Pod string
	// CredsFile, SystemDir as contract names them.
	CredsFile, SystemDir string
	// ListenAddress of the system's listener, HealthAddress of health and metrics; as ":8080".
	ListenAddress, HealthAddress string
	// AllowLoopback lets systems be reached at loopback addresses. For tests.
	AllowLoopback bool
	// Grace is how long the drain may take; 25 s if zero. Linger is how long a listener stays open after the drain has begun; 3 s if zero.
	Grace, Linger time.Duration
	Log           *slog.Logger
	// Telemetry says where spans and metrics go; the engine fills in the rest.
	Telemetry telemetry.Options
}

// Engine runs one connector pod.
type Engine struct {
	Options
	conn     *connection
	replies  *replies
	reports  *reports
	secrets  *secrets
	registry registry
	tracer   *telemetry.Tracer
	meter    *telemetry.Meter
	system   *systemState
	health   *health

	publisher *publisher
	caller    *caller
	sink      *sinkRunner
	listens   atomic.Bool
	// broken is why the system can never work as configured.
	broken error
}

// New makes an engine; nothing runs yet.
func New(o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if o.Linger == 0 {
		o.Linger = listenerLinger
	}
	if o.Pod == "" {
		return nil, errors.New("the pod's name is not known: set " + contract.EnvPodName)
	}
	if _, err := os.Stat(o.CredsFile); err != nil {
		return nil, fmt.Errorf("the broker's credentials: %w", err)
	}
	return &Engine{Options: o}, nil
}

// Run until the context ends, and then drain. An error means that the pod has to end; nil that it has been drained.
func (e *Engine) Run(ctx context.Context) error {
	// What must go on during the drain has a context of its own, which ends when Run does.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	e.registry = newRegistry(e.Config, e.Pod)
	var err error
	if e.health, err = serveHealth(work, e.HealthAddress, e.registry.handler()); err != nil {
		return err
	}
	defer e.health.close()

	e.conn = newConnection(e.Config, e.CredsFile, e.Log)
	e.reports = newReports(e.Config, e.Pod, e.conn)
	e.conn.onChange = e.reports.changed
	e.system = newSystemState(e.reports.changed)
	e.reports.collect = e.report
	e.secrets = newSecrets(e.SystemDir, e.Config, e.Log)
	if err := e.conn.open(e.Config, e.Pod); err != nil {
		return err
	}
	defer e.conn.close()
	if e.replies, err = newReplies(e.conn); err != nil {
		return err
	}
	if err := e.observe(); err != nil {
		return err
	}
	defer e.closeTelemetry(ctx)
	e.gauges()

	var background sync.WaitGroup
	background.Go(func() { e.secrets.watch(work) })
	background.Go(func() { e.conn.renew(work) })
	background.Go(func() { e.sweep(work) })
	background.Go(func() { e.meter.Run(work) })
	defer background.Wait()
	defer stopWork()

	switch {
	case e.Config.Source != nil:
		err = e.runSource(ctx, work)
	case e.Config.Service != nil:
		err = e.runService(ctx, work)
	default:
		err = e.runSink(ctx, work)
	}
	e.health.ready.Store(false)
	e.reports.drain()
	_ = e.conn.nc.FlushTimeout(2 * time.Second)
	return err
}

func (e *Engine) gauges() {
	e.registry.gauge("metip_connector_system_connected", "1 while the system can be reached and accepts the connector.", nil, func() float64 {
		if err, pending, _ := e.system.get(); err != nil || pending {
			return 0
		}
		return 1
	})
	e.registry.gauge("metip_connector_broker_connected", "1 while the broker is connected and lets the connector do its work.", nil, func() float64 {
		if err, _ := e.conn.state(); err != nil {
			return 0
		}
		return 1
	})
}

func (e *Engine) sweep(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			e.replies.sweep(now)
		}
	}
}

// runtime is what a system gets.
func (e *Engine) runtime() sdk.Runtime {
	dialer := newDialer(e.AllowLoopback)
	return sdk.Runtime{
		Config: e.Config, Log: e.Log, Secrets: e.secrets, Dial: dialer.DialContext,
		Gauge: func(name, help string, value func() float64) { e.registry.gauge(name, help, nil, value) },
		Listen: func(ctx context.Context) (net.Listener, error) {
			var lc net.ListenConfig
			l, err := lc.Listen(ctx, "tcp", e.ListenAddress)
			if err == nil {
				e.listens.Store(true)
				e.health.ready.Store(e.broken == nil)
			}
			return l, err
		},
	}
}

// runBroken reports a configuration that can never work, until the pod is stopped: the status says more than a crash loop.
func (e *Engine) runBroken(ctx context.Context, err error) {
	e.broken = fmt.Errorf("the configuration cannot work: %w", err)
	e.Log.Error("the configuration cannot work", "error", err)
	e.system.System(sdk.Unavailable(contract.ReasonSystemError, e.broken))
	e.reports.run(ctx.Done())
}

func (e *Engine) runSource(ctx, work context.Context) error {
	e.publisher = newPublisher(e.Config, e.conn, e.replies, newSourceMetrics(e.registry), e.reports.changed)
	e.publisher.envelope.tracer = e.tracer
	if e.publisher.batches != nil {
		go e.publisher.batches.run(work.Done())
	}
	if e.System.Source == nil {
		e.runBroken(ctx, fmt.Errorf("%s is no source", e.Config.Source.System.Type))
		return nil
	}
	runtime := e.runtime()
	if len(e.Config.Source.Calls) > 0 {
		caller, err := newCaller(e.Config, e.conn, e.registry, e.Log, e.reports.changed)
		if err != nil {
			return err
		}
		caller.tracer = e.tracer
		e.caller, runtime.Caller = caller, caller
	}
	if e.Config.Source.Position {
		runtime.Position = newSourcePosition(e.conn, e.Config.Connector)
	}
	if text := e.Config.Source.PartitionKey; text != "" {
		key, err := steps.CompileKey(text)
		if err != nil {
			e.runBroken(ctx, fmt.Errorf("partitionKey: %w", err))
			return nil
		}
		e.publisher.envelope.key = key
	}
	var err error
	if e.publisher.door, err = newDoor(e.Config.Source.Schema); err != nil {
		e.runBroken(ctx, err)
		return nil
	}
	source, err := e.System.Source(runtime, e.Config.Source.System.Options)
	if err != nil {
		e.runBroken(ctx, err)
		return nil
	}
	go e.reports.run(work.Done())
	running, stop := context.WithCancel(work)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- source.Run(running, e.publisher, e.system) }()
	// A source that listens is ready when its listener is open, any other when it runs.
	ready := time.AfterFunc(200*time.Millisecond, func() { e.health.ready.Store(true) })
	defer ready.Stop()
	select {
	case err := <-done:
		return ended(err)
	case <-ctx.Done():
	}
	e.Log.Info("draining")
	e.health.ready.Store(false)
	e.reports.drain()
	if e.listens.Load() {
		select {
		case err := <-done:
			return ended(err)
		case <-time.After(e.Linger):
		}
	}
	stop()
	select {
	case err = <-done:
	case <-time.After(e.Grace):
		err = fmt.Errorf("the source did not settle within %s", e.Grace)
	}
	e.publisher.close(sdk.ErrSuspended)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// ended: a source never ends by itself.
func ended(err error) error {
	if err == nil {
		return errors.New("the source ended by itself")
	}
	return fmt.Errorf("the source ended: %w", err)
}

// openSink makes the sink: a system's or, of a relay, the engine's own, which lasts until work ends.
func (e *Engine) openSink(work context.Context) (sdk.Sink, error) {
	switch {
	case e.Config.Sink.System.Type == contract.RelaySystem:
		return newRelaySink(work, e), nil
	case e.System.Sink == nil:
		return nil, fmt.Errorf("%s is no sink", e.Config.Sink.System.Type)
	default:
		return e.System.Sink(e.runtime(), e.Config.Sink.System.Options)
	}
}

func (e *Engine) runSink(ctx, work context.Context) error {
	sink, err := e.openSink(work)
	if err != nil {
		e.runBroken(ctx, err)
		return nil
	}
	defer func() {
		if err := sink.Close(); err != nil {
			e.Log.Warn("close the system's connections", "error", err)
		}
	}()
	deliver, stop := context.WithCancelCause(work)
	defer stop(nil)
	runner := &sinkRunner{
		config: e.Config, log: e.Log, conn: e.conn, replies: e.replies, secrets: e.secrets, metrics: newSinkMetrics(e.registry), sink: sink,
		system: e.system, started: time.Now(), changed: e.reports.changed, deliver: deliver, tracer: e.tracer,
	}
	if runner.enrichment, err = newEnrichment(e); err != nil {
		return err
	}
	runner.prepare(e.registry)
	e.sink = runner
	go e.reports.run(work.Done())
	e.health.ready.Store(true)
	defer context.AfterFunc(ctx, func() {
		e.Log.Info("draining")
		e.health.ready.Store(false)
		e.reports.drain()
		time.AfterFunc(e.Grace, func() { stop(errors.New("the pod is shutting down")) })
	})()
	runner.run(ctx)
	return nil
}

func (e *Engine) runService(ctx, work context.Context) error {
	if e.System.Service == nil {
		e.runBroken(ctx, fmt.Errorf("%s is no service", e.Config.Service.System.Type))
		return nil
	}
	service, err := e.System.Service(e.runtime(), e.Config.Service.System.Options)
	if err != nil {
		e.runBroken(ctx, err)
		return nil
	}
	defer func() {
		if err := service.Close(); err != nil {
			e.Log.Warn("close the system's connections", "error", err)
		}
	}()
	calls, stop := context.WithCancelCause(work)
	defer stop(nil)
	runner, err := newServiceRunner(calls, e.Config, service)
	if err != nil {
		e.runBroken(ctx, err)
		return nil
	}
	runner.log, runner.conn, runner.secrets, runner.system, runner.tracer = e.Log, e.conn, e.secrets, e.system, e.tracer
	runner.metrics = newServiceMetrics(e.registry, e.Config.Service)
	e.registry.gauge("metip_connector_circuit_open", "1 while calls are refused because the system is unavailable.", nil, runner.breaker.opened)
	go e.reports.run(work.Done())
	defer context.AfterFunc(ctx, func() {
		e.Log.Info("draining")
		e.health.ready.Store(false)
		e.reports.drain()
		time.AfterFunc(e.Grace, func() { stop(errShuttingDown) })
	})()
	return runner.run(ctx, func() { e.health.ready.Store(true) })
}

// report of the pod as it is.
func (e *Engine) report() contract.Report {
	r := contract.Report{ConfigHash: e.Config.Hash}
	if e.sink != nil {
		r.Routes = e.sink.routes()
	}
	if e.caller != nil {
		r.Routes = e.caller.states()
	}
	err, pending, since := e.system.get()
	if pending {
		r.System = contract.State{Reason: contract.ReasonPending, Message: "the system has not been tried yet", Since: since.UTC().Truncate(time.Second)}
	} else {
		r.System = state(err, reasonOf(err), since)
	}
	err, since = e.conn.state()
	reason := contract.ReasonBrokerUnreachable
	if err == nil && e.publisher != nil {
		if err, since = e.publisher.state(); errors.Is(err, sdk.ErrFull) {
			reason = contract.ReasonStreamFull
		}
	}
	r.Bus = state(err, reason, since)
	return r
}
