// Package tracing records what a connector pod does to a message as OpenTelemetry spans, children of the W3C trace context that the message
// carries, and sends them to a collector by OTLP over HTTP. The engine calls it; a pod without a collector has no Tracer, and pays nothing.
//
// Spans are made, sampled and queued by OpenTelemetry's SDK. Only the encoding is ours (OTLP's JSON form): the SDK's own exporter
// brings gRPC and protocol buffers along, 6 MiB of memory in every pod, traced or not.
package tracing
