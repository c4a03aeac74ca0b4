package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

// telemetryPatience is how long a pod that ends waits for the collector to take its last spans and metrics.
const telemetryPatience = 2 * time.Second

// observe makes the pod's tracer and meter, where there is a collector for them.
func (e *Engine) observe() (err error) {
	o := e.Telemetry
	o.Config, o.Pod, o.Log, o.Dial = e.Config, e.Pod, e.Log, newDialer(e.AllowLoopback).DialContext
	if e.meter, err = telemetry.NewMeter(o, e.registry); err != nil {
		return err
	}
	if e.tracer, err = telemetry.New(o); err != nil || e.tracer == nil {
		return err
	}
	e.registry.counterFunc("metip_connector_spans_dropped_total", "Spans that the collector did not take.", func() float64 { return float64(e.tracer.Dropped()) })
	return nil
}

// closeTelemetry once everything else has ended, the context among it.
func (e *Engine) closeTelemetry(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), telemetryPatience)
	defer cancel()
	e.tracer.Close(ctx)
	e.meter.Close(ctx)
}

// beginSpans of one attempt to deliver a batch, whose messages carry them on to the system. Nil where nothing is traced.
func (d *destination) beginSpans(batch []*held) []telemetry.Span {
	tracer := d.sink.tracer
	if tracer == nil {
		return nil
	}
	spans := make([]telemetry.Span, len(batch))
	for i, h := range batch {
		spans[i] = tracer.Deliver(first(h.in.Header, contract.HeaderTraceParent), first(h.in.Header, contract.HeaderTraceState),
			d.route.Name, d.route.Destination, h.message.ID, h.delivery.Attempt)
		if h.message.Headers == nil {
			h.message.Headers = map[string]string{}
		}
		h.message.Headers[contract.HeaderTraceParent] = spans[i].TraceParent()
	}
	return spans
}

// endSpans with what became of each message.
func endSpans(spans []telemetry.Span, results []error, panicked error) {
	for i, s := range spans {
		err := panicked
		if err == nil && i < len(results) {
			err = results[i]
		}
		s.End(err)
	}
}

// endSpans of what was published.
func (g *group) endSpans(err error) {
	for i := range g.items {
		item := &g.items[i]
		if item.stored {
			item.span.End(nil)
		} else {
			item.span.End(err)
		}
		item.span = telemetry.Span{}
	}
}

// endCall with what became of it: an answer of a hop, or of the system that says it failed, is an error; none at all was given up.
func endCall(s telemetry.Span, a *sdk.Answer) {
	switch {
	case a == nil:
		s.End(errCallCancelled)
	case a.Hop != "":
		s.End(fmt.Errorf("%d from %s", a.Status, a.Hop))
	case a.Status >= 500:
		s.End(fmt.Errorf("%d from the system", a.Status))
	default:
		s.End(nil)
	}
}
