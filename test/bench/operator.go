package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The operator's identity, as config/default deploys it.
const (
	operatorNamespace = "metip-system"
	operatorUser      = "system:serviceaccount:" + operatorNamespace + ":metip-manager"
)

type operatorSettings struct {
	connectors int
	idle       time.Duration
}

// How long the operator must have written nothing to count as settled.
const settledAfter = 10 * time.Second

// benchOperator gives a real API server many Connectors and Routes, with the operator running as a process of its own and a real broker.
func benchOperator(ctx context.Context, dir string, o options, figures *results) (err error) {
	var b binaries
	if err := build(ctx, dir, map[*string]string{&b.natsServer: packageNATSServer, &b.manager: packageManager}); err != nil {
		return err
	}
	dir = filepath.Join(dir, "operator")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := startServer(ctx, dir, "broker", b.natsServer, true)
	if err != nil {
		return err
	}
	defer s.stop()
	api, err := startAPIServer(ctx, dir, o.assets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.stop()) }()
	credentials, err := s.broker.Credentials()
	if err != nil {
		return err
	}
	if err := api.applyBroker(ctx, s.url, credentials); err != nil {
		return err
	}
	m := &managerRun{api: api, dir: dir, binary: b.manager, figures: figures, settings: o.operator}
	if err := m.start(ctx); err != nil {
		return err
	}
	defer func() { m.process.stop() }()
	for _, part := range []func(context.Context) error{m.settle, m.apply, m.idle, m.restart} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, m.process.tail())
		}
	}
	return nil
}

// managerRun is the operator's process and what is asked of it.
type managerRun struct {
	api      *apiServer
	dir      string
	binary   string
	figures  *results
	settings operatorSettings
	process  *process
}

func (m *managerRun) start(ctx context.Context) error {
	probe, err := freeAddress()
	if err != nil {
		return err
	}
	m.process, err = startWith(ctx, m.dir, "manager", "http://"+probe+"/readyz",
		[]string{"KUBECONFIG=" + m.api.kubeconfig, "POD_NAMESPACE=" + operatorNamespace}, m.binary, managerArguments(probe)...)
	return err
}

// settle waits until the broker is connected and the Integration programmed, with nothing more to write.
func (m *managerRun) settle(ctx context.Context) error {
	if err := m.until(ctx, time.Minute, func() (bool, string, error) { return m.api.integrationProgrammed(ctx) }); err != nil {
		return fmt.Errorf("Integration: %w", err)
	}
	_, err := m.quiet(ctx)
	return err
}

// quiet waits until the operator has written nothing for a while and returns what it has written since the last call.
func (m *managerRun) quiet(ctx context.Context) (all requests, err error) {
	all.writes = map[string]int{}
	calm := time.Now()
	for time.Since(calm) < settledAfter {
		if err := wait(ctx, 500*time.Millisecond); err != nil {
			return all, err
		}
		if err := m.process.alive(); err != nil {
			return all, err
		}
		r, err := m.api.audit.since()
		if err != nil {
			return all, err
		}
		if r.total() > 0 {
			calm = time.Now()
		}
		all.add(r)
	}
	return all, nil
}

func (m *managerRun) until(ctx context.Context, limit time.Duration, done func() (bool, string, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, state, err := done()
		if err != nil || ok {
			return err
		}
		if err := m.process.alive(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not done after %s: %s", limit, state)
		}
		if err := wait(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// apply the objects and measure until all are Programmed, and what that took.
func (m *managerRun) apply(ctx context.Context) error {
	objects := connectorsAndRoutes(m.settings.connectors)
	flow := fmt.Sprintf("operator, %d Connectors and %d Routes applied", m.settings.connectors, len(objects)-m.settings.connectors)
	_, _ = fmt.Fprintln(os.Stderr, flow)
	idleRSS, err := m.process.rss()
	if err != nil {
		return err
	}
	before, err := m.process.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.api.create(ctx, objects); err != nil {
		return err
	}
	created := time.Since(began)
	err = m.until(ctx, 5*time.Minute, func() (bool, string, error) {
		n, example, err := m.api.programmed(ctx)
		return n == len(objects), fmt.Sprintf("%d of %d are Programmed; %s", n, len(objects), example), err
	})
	if err != nil {
		return err
	}
	programmed := time.Since(began)
	written, err := m.quiet(ctx)
	if err != nil {
		return err
	}
	after, err := m.process.cpu()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(os.Stderr, "  written:", written)
	per := float64(len(objects))
	m.figures.add(flow, "applying took", created.Seconds(), "s", lower)
	m.figures.add(flow, "all Programmed after", programmed.Seconds(), "s", lower)
	m.figures.add(flow, "api writes per object", float64(written.total())/per, "writes", lower)
	m.figures.add(flow, "api writes refused", float64(written.refused), "writes", lower)
	m.figures.add(flow, "events per object", float64(written.events)/per, "events", lower)
	m.figures.add(flow, "api reads per object", float64(written.reads)/per, "reads", lower)
	m.figures.add(flow, "rss before", mebibytes(idleRSS), "MiB", lower)
	m.figures.add(flow, "cpu until settled", (after - before).Seconds(), "s", lower)
	return m.memory(flow)
}

func (m *managerRun) memory(flow string) error {
	rss, err := m.process.rss()
	if err != nil {
		return err
	}
	peak, err := m.process.peak()
	if err != nil {
		return err
	}
	m.figures.add(flow, "rss after", mebibytes(rss), "MiB", lower)
	m.figures.add(flow, "rss peak", mebibytes(peak), "MiB", lower)
	return nil
}

// idle watches the operator while nothing changes: only leases should be written.
func (m *managerRun) idle(ctx context.Context) error {
	flow := fmt.Sprintf("operator, idle for %s", m.settings.idle)
	_, _ = fmt.Fprintln(os.Stderr, flow)
	if _, err := m.api.audit.since(); err != nil {
		return err
	}
	before, err := m.process.cpu()
	if err != nil {
		return err
	}
	if err := wait(ctx, m.settings.idle); err != nil {
		return err
	}
	after, err := m.process.cpu()
	if err != nil {
		return err
	}
	written, err := m.api.audit.since()
	if err != nil {
		return err
	}
	m.nothing(flow, written).aim(0)
	m.figures.add(flow, "cpu", 100*(after-before).Seconds()/m.settings.idle.Seconds(), "% of a core", lower)
	return nil
}

// restart the operator: it reads everything anew and should find nothing to write but its lease.
func (m *managerRun) restart(ctx context.Context) error {
	const flow = "operator, restarted"
	_, _ = fmt.Fprintln(os.Stderr, flow)
	m.process.stop()
	if err := m.start(ctx); err != nil {
		return err
	}
	// The lease is written when the new process leads; quiet counts from then on.
	written := requests{writes: map[string]int{}}
	err := m.until(ctx, time.Minute, func() (bool, string, error) {
		r, err := m.api.audit.since()
		written.add(r)
		return written.leases > 0, "no lease was taken", err
	})
	if err != nil {
		return err
	}
	rest, err := m.quiet(ctx)
	if err != nil {
		return err
	}
	written.add(rest)
	m.nothing(flow, written)
	m.figures.add(flow, "start to ready", milliseconds(m.process.ready), "ms", lower)
	cpu, err := m.process.cpu()
	if err != nil {
		return err
	}
	m.figures.add(flow, "cpu until settled", cpu.Seconds(), "s", lower)
	return m.memory(flow)
}

// nothing reports the writes where there should be none but leases, and returns the figure of the events: whoever takes the lease
// records one.
func (m *managerRun) nothing(flow string, written requests) *Result {
	_, _ = fmt.Fprintln(os.Stderr, "  written:", written)
	m.figures.add(flow, "api writes but leases and events", float64(written.total()), "writes", lower).aim(0)
	m.figures.add(flow, "leases", float64(written.leases), "writes", lower)
	return m.figures.add(flow, "events", float64(written.events), "events", lower)
}

// managerArguments of the operator's process. Its webhook and metrics have nobody to serve.
func managerArguments(probe string) []string {
	return []string{"--image=localhost/metip:dev", "--webhooks=false", "--health-probe-bind-address=" + probe, "--metrics-bind-address=0"}
}
