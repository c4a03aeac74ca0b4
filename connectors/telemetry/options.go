package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/metip/metip/connectors/contract"
)

const (
	// exportTimeout bounds one request to the collector.
	exportTimeout   = 5 * time.Second
	defaultRatio    = 0.01
	defaultInterval = time.Minute
	minInterval     = time.Second
	// metricsByOTLP is the value of contract.EnvMetricsExporter that asks for metrics.
	metricsByOTLP = "otlp"
)

// Options of a Tracer and a Meter.
type Options struct {
	// Endpoint of the collector: an OTLP/HTTP base URL, http://collector.observability:4318. Empty: there is none.
	Endpoint string
	// Ratio of traces that begin here and are sampled, from 0 to 1. What comes with a trace context is sampled as that says.
	Ratio float64
	// MetricsEvery is how often the collector gets the pod's metrics; zero: never.
	MetricsEvery time.Duration
	// Config of the connector that runs; nil of a program that is none, and is known by Service in Namespace.
	Config             *contract.Config
	Service, Namespace string
	// Pod is the name of the pod.
	Pod string
	Log *slog.Logger
	// Dial connects to the collector.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// FromEnvironment fills in what goes to which collector: contract.EnvCollectorEndpoint and those after it.
func FromEnvironment(o *Options) error {
	o.Endpoint, o.Ratio = os.Getenv(contract.EnvCollectorEndpoint), defaultRatio
	if text := os.Getenv(contract.EnvTraceRatio); text != "" {
		var err error
		if o.Ratio, err = strconv.ParseFloat(text, 64); err != nil || o.Ratio < 0 || o.Ratio > 1 {
			return fmt.Errorf("%s must be a number from 0 to 1, not %q", contract.EnvTraceRatio, text)
		}
	}
	switch text := os.Getenv(contract.EnvMetricsExporter); text {
	case "", "none", "prometheus":
		return nil
	case metricsByOTLP:
		o.MetricsEvery = defaultInterval
	default:
		return fmt.Errorf("%s must be otlp, prometheus or none, not %q", contract.EnvMetricsExporter, text)
	}
	if text := os.Getenv(contract.EnvMetricsInterval); text != "" {
		n, err := strconv.Atoi(text)
		o.MetricsEvery = time.Duration(n) * time.Millisecond
		if err != nil || o.MetricsEvery < minInterval {
			return fmt.Errorf("%s must be a number of milliseconds, at least %d, not %q", contract.EnvMetricsInterval, minInterval.Milliseconds(), text)
		}
	}
	return nil
}

// resource is the pod, in OpenTelemetry's terms.
func (o *Options) resource() []attribute.KeyValue {
	name, namespace := o.Service, o.Namespace
	if o.Config != nil {
		name, namespace = o.Config.Connector.Name, o.Config.Connector.Namespace
	}
	out := []attribute.KeyValue{
		attribute.String("service.name", name), attribute.String("service.namespace", namespace), attribute.String("service.instance.id", o.Pod),
		attribute.String("k8s.namespace.name", namespace), attribute.String("k8s.pod.name", o.Pod),
	}
	if o.Config != nil {
		out = append(out, attribute.String("metip.integration", o.Config.Connector.Integration))
	}
	return out
}
