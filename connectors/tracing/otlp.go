package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// exporter sends spans as OTLP's JSON (https://opentelemetry.io/docs/specs/otlp/, OTLP/HTTP; opentelemetry-proto, trace/v1).
type exporter struct {
	url     string
	client  *http.Client
	log     *slog.Logger
	dropped atomic.Uint64
	// failing keeps the log to one line each time that the collector goes or comes back.
	failing atomic.Bool
}

func newExporter(endpoint *url.URL, o Options) *exporter {
	transport := &http.Transport{DialContext: o.Dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: exportTimeout}
	return &exporter{
		url: strings.TrimSuffix(endpoint.String(), "/") + "/v1/traces", log: o.Log,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// ExportSpans implements sdktrace.SpanExporter. What the collector does not take is counted and forgotten.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.send(ctx, spans)
	if err != nil {
		e.dropped.Add(uint64(len(spans)))
	}
	if was := e.failing.Swap(err != nil); was != (err != nil) {
		if err != nil {
			e.log.Warn("the collector does not take spans", "error", err)
		} else {
			e.log.Info("the collector takes spans again")
		}
	}
	return nil
}

func (e *exporter) send(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	body, err := json.Marshal(requestOf(spans))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := e.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", e.url, answer.Status)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// The messages of opentelemetry-proto that are needed, in their JSON form: ids in hexadecimal, 64-bit numbers as text.
type (
	request struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   attributes   `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	attributes struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	span struct {
		TraceID      string     `json:"traceId"`
		SpanID       string     `json:"spanId"`
		ParentSpanID string     `json:"parentSpanId,omitempty"`
		TraceState   string     `json:"traceState,omitempty"`
		Name         string     `json:"name"`
		Kind         int        `json:"kind"`
		Start        string     `json:"startTimeUnixNano"`
		End          string     `json:"endTimeUnixNano"`
		Attributes   []keyValue `json:"attributes,omitempty"`
		Status       *status    `json:"status,omitempty"`
	}
	status struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
)

// requestOf spans, all of one pod.
func requestOf(spans []sdktrace.ReadOnlySpan) request {
	list := make([]span, len(spans))
	for i, s := range spans {
		list[i] = spanOf(s)
	}
	pod := attributes{Attributes: keyValues(spans[0].Resource().Attributes())}
	return request{[]resourceSpans{{Resource: pod, ScopeSpans: []scopeSpans{{Scope: scope{Name: "metip"}, Spans: list}}}}}
}

func spanOf(s sdktrace.ReadOnlySpan) span {
	out := span{
		TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(), TraceState: s.SpanContext().TraceState().String(),
		Name: s.Name(), Kind: kindOf(s.SpanKind()), Attributes: keyValues(s.Attributes()),
		Start: strconv.FormatInt(s.StartTime().UnixNano(), 10), End: strconv.FormatInt(s.EndTime().UnixNano(), 10),
	}
	if s.Parent().HasSpanID() {
		out.ParentSpanID = s.Parent().SpanID().String()
	}
	if s.Status().Code == codes.Error {
		out.Status = &status{Code: 2, Message: s.Status().Description}
	}
	return out
}

// kindOf a span, as opentelemetry-proto numbers them.
func kindOf(k trace.SpanKind) int {
	switch k {
	case trace.SpanKindServer:
		return 2
	case trace.SpanKindClient:
		return 3
	case trace.SpanKindProducer:
		return 4
	case trace.SpanKindConsumer:
		return 5
	default:
		return 1
	}
}

func keyValues(list []attribute.KeyValue) []keyValue {
	out := make([]keyValue, len(list))
	for i, a := range list {
		text := a.Value.String()
		if a.Value.Type() == attribute.INT64 {
			out[i] = keyValue{string(a.Key), value{Int: &text}}
		} else {
			out[i] = keyValue{string(a.Key), value{String: &text}}
		}
	}
	return out
}
