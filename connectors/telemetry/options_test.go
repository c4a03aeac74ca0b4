package telemetry

import (
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
)

func TestFromEnvironment(t *testing.T) {
	for _, c := range []struct {
		ratio, exporter, interval string
		want                      Options
		err                       string
	}{
		{want: Options{Ratio: 0.01}},
		{ratio: "0.5", exporter: "otlp", want: Options{Ratio: 0.5, MetricsEvery: time.Minute}},
		{exporter: "otlp", interval: "15000", want: Options{Ratio: 0.01, MetricsEvery: 15 * time.Second}},
		{exporter: "none", interval: "x", want: Options{Ratio: 0.01}},
		{ratio: "x", err: "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"},
		{ratio: "2", err: "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"},
		{exporter: "console", err: "OTEL_METRICS_EXPORTER must be otlp, prometheus or none"},
		{exporter: "otlp", interval: "15s", err: "OTEL_METRIC_EXPORT_INTERVAL must be a number of milliseconds, at least 1000"},
	} {
		t.Setenv(contract.EnvCollectorEndpoint, "http://c:4318")
		t.Setenv(contract.EnvTraceRatio, c.ratio)
		t.Setenv(contract.EnvMetricsExporter, c.exporter)
		t.Setenv(contract.EnvMetricsInterval, c.interval)
		var got Options
		err := FromEnvironment(&got)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: %v", c, err)
			}
		case err != nil:
			t.Errorf("%v: %v", c, err)
		case got.Endpoint != "http://c:4318" || got.Ratio != c.want.Ratio || got.MetricsEvery != c.want.MetricsEvery:
			t.Errorf("%v: %+v", c, got)
		}
	}
}
