package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/metip/metip/connectors/contract"
)

// Bounds of what waits for the collector: further spans are dropped, never messages held up.
const (
	maxQueued      = 2048
	maxBatch       = 256
	exportEvery    = 2 * time.Second
	maxDescription = 512
)

// Tracer makes spans. A nil Tracer makes none.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	export   *exporter
}

// New makes a Tracer; nil where no collector is named.
func New(o Options) (*Tracer, error) {
	if o.Endpoint == "" {
		return nil, nil
	}
	spans, err := collectorOf(&o, "spans", "/v1/traces")
	if err != nil {
		return nil, err
	}
	export := &exporter{collector: spans}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(resource.NewSchemaless(o.resource()...)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Ratio))),
		sdktrace.WithBatcher(export, sdktrace.WithMaxQueueSize(maxQueued), sdktrace.WithMaxExportBatchSize(maxBatch),
			sdktrace.WithBatchTimeout(exportEvery), sdktrace.WithExportTimeout(exportTimeout)),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer(scopeName), export: export}, nil
}

// Dropped is the number of spans that the collector did not take.
func (t *Tracer) Dropped() uint64 {
	if t == nil {
		return 0
	}
	return t.export.dropped.Load()
}

// Close sends what is queued, for no longer than the context lasts.
func (t *Tracer) Close(ctx context.Context) {
	if t != nil {
		_ = t.provider.Shutdown(ctx)
	}
}

// Span is one thing done to a message. The zero Span records nothing.
type Span struct{ span trace.Span }

var propagator propagation.TraceContext

// Publish begins the span of a message that is put on the bus. parent and state are the trace context that it came with, or empty.
func (t *Tracer) Publish(parent, state, subject, id string) Span {
	if t == nil {
		return Span{}
	}
	return t.start(parent, state, "publish", trace.SpanKindProducer,
		attribute.String("messaging.operation.type", "send"), attribute.String("messaging.destination.name", subject), attribute.String("messaging.message.id", id))
}

// Deliver begins the span of one attempt to deliver a message.
func (t *Tracer) Deliver(parent, state, route, destination, id string, attempt int) Span {
	if t == nil {
		return Span{}
	}
	return t.start(parent, state, "deliver "+route+"/"+destination, trace.SpanKindConsumer,
		attribute.String("messaging.operation.type", "process"), attribute.String("metip.route", route), attribute.String("metip.destination", destination),
		attribute.String("messaging.message.id", id), attribute.Int("metip.attempt", attempt))
}

// Call begins the span of a request to a service (client), or of the service's answer (server).
func (t *Tracer) Call(parent, state, service string, server bool) Span {
	if t == nil {
		return Span{}
	}
	if server {
		return t.start(parent, state, "answer", trace.SpanKindServer, attribute.String("metip.service", service))
	}
	return t.start(parent, state, "call "+service, trace.SpanKindClient, attribute.String("metip.service", service))
}

func (t *Tracer) start(parent, state, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) Span {
	ctx := propagator.Extract(context.Background(), propagation.MapCarrier{contract.HeaderTraceParent: parent, contract.HeaderTraceState: state}) //nolint:forbidigo // it carries nothing but the parent
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	return Span{span}
}

// TraceParent is the W3C trace context of what follows; empty for the zero Span.
func (s Span) TraceParent() string {
	if s.span == nil {
		return ""
	}
	c := s.span.SpanContext()
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + (c.TraceFlags() & trace.FlagsSampled).String()
}

// End the span; err is what went wrong, in a text that holds no secret and no content of the message.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		text := err.Error()
		s.span.SetStatus(codes.Error, text[:min(len(text), maxDescription)])
	}
	s.span.End()
}
