package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/engine"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/test/bench/record"
)

// newEngine runs one connector with a system of this process.
func newEngine(system sdk.System) (*engine.Engine, error) {
	engine.LimitMemory()
	c, err := engine.LoadConfig(*config)
	if err != nil {
		return nil, err
	}
	return engine.New(engine.Options{
		Config: c, System: system, Pod: c.Connector.Name + "-0", CredsFile: *creds, SystemDir: *secrets, HealthAddress: *health,
		Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
}

// How a source that has many records at hand publishes: calls of some hundred messages, several at a time, so that some are made while others
// are on their way.
const (
	callMessages = 500
	callers      = 4
)

// generator is a source that makes records when it is told to.
type generator struct{ jobs chan request }

type request struct {
	ctx  context.Context
	job  job
	done chan outcome
}

type outcome struct {
	messages int64
	err      error
}

func newSource(context.Context) (role, error) {
	g := &generator{jobs: make(chan request)}
	e, err := newEngine(sdk.System{Name: "generator", Source: func(sdk.Runtime, json.RawMessage) (sdk.Source, error) { return g, nil }})
	if err != nil {
		return role{}, err
	}
	return role{run: e.Run, publish: func(ctx context.Context, j job) (int64, error) {
		r := request{ctx: ctx, job: j, done: make(chan outcome, 1)}
		select {
		case g.jobs <- r:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		o := <-r.done
		return o.messages, o.err
	}}, nil
}

// Run implements sdk.Source.
func (g *generator) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	state.System(nil)
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-g.jobs:
			n, err := generate(r.ctx, bus, r.job)
			r.done <- outcome{n, err}
		}
	}
}

func generate(ctx context.Context, bus sdk.Publisher, j job) (int64, error) {
	var next, stored atomic.Int64
	errs := make([]error, callers)
	begun := time.Now()
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			messages, bodies := make([]*sdk.Message, callMessages), make([][]byte, callMessages)
			for i := range messages {
				messages[i], bodies[i] = &sdk.Message{}, record.Body(0)
			}
			for ctx.Err() == nil && time.Since(begun) < j.lasts {
				from := int(next.Add(callMessages)) - callMessages
				n := min(callMessages, j.messages-from)
				if n <= 0 {
					return
				}
				for i := range n {
					record.SetNumber(bodies[i], j.first+from+i)
					*messages[i] = sdk.Message{ID: strconv.Itoa(j.first + from + i), ContentType: "application/json", Data: bodies[i]}
				}
				if errs[c] = bus.Publish(ctx, messages[:n]...); errs[c] != nil {
					return
				}
				stored.Add(int64(n))
			}
		})
	}
	group.Wait()
	return stored.Load(), errors.Join(errs...)
}

// counter is a sink that confirms everything at once.
type counter struct {
	n           atomic.Int64
	first, last atomic.Int64
}

func newSink(context.Context) (role, error) {
	c := &counter{}
	e, err := newEngine(sdk.System{Name: "counter", Sink: func(sdk.Runtime, json.RawMessage) (sdk.Sink, error) { return c, nil }})
	if err != nil {
		return role{}, err
	}
	return role{run: e.Run, drained: c.drained}, nil
}

// count what was consumed.
func (c *counter) count(n int) {
	now := time.Now().UnixNano()
	c.first.CompareAndSwap(0, now)
	c.last.Store(now)
	c.n.Add(int64(n))
}

func (c *counter) drained() Done {
	n := c.n.Load()
	return Done{Messages: n, Nanoseconds: c.last.Load() - c.first.Load()}
}

// Operation implements sdk.Sink.
func (c *counter) Operation(json.RawMessage) (sdk.Operation, error) { return c, nil }

// Check implements sdk.Sink.
func (c *counter) Check(context.Context) error { return nil }

// Close implements sdk.Sink.
func (c *counter) Close() error { return nil }

// MaxBatch implements sdk.Operation.
func (c *counter) MaxBatch() int { return *batch }

// Opaque implements sdk.Opaque.
func (c *counter) Opaque() bool { return true }

// Write implements sdk.Operation.
func (c *counter) Write(_ context.Context, batch []*sdk.Delivery) []error {
	c.count(len(batch))
	return make([]error, len(batch))
}
