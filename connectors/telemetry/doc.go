// Package telemetry tells an OpenTelemetry collector what a connector pod does, by OTLP over HTTP: each step of a message as a span, the child of
// the W3C trace context that the message carries, and, if asked for, the pod's metrics, which Prometheus reads from the pod itself. The engine calls
// it, and the operator for its own metrics; a process without a collector has neither a Tracer nor a Meter, and pays nothing.
//
// Spans are made, sampled and queued by OpenTelemetry's SDK, metrics by Prometheus' client. Only the encoding is ours (OTLP's JSON form): the
// SDK's own exporters bring gRPC and protocol buffers along, 6 MiB of memory in every pod, traced or not.
package telemetry
