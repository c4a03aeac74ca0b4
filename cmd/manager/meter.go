package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/telemetry"
)

const (
	// serviceName by which a collector knows the operator.
	serviceName = "metip-manager"
	// lastExport bounds the one at the end; shutdownTimeout is for all.
	lastExport  = 5 * time.Second
	dialTimeout = 5 * time.Second
)

// addMeter lets the operator send its metrics to the collector that its environment names, as connector pods do; without one it adds nothing.
func addMeter(mgr ctrl.Manager, namespace string, metrics prometheus.Gatherer) error {
	o := telemetry.Options{
		Service: serviceName, Namespace: namespace, Pod: os.Getenv(contract.EnvPodName),
		Log: slog.New(logr.ToSlogHandler(ctrl.Log.WithName("telemetry"))), Dial: (&net.Dialer{Timeout: dialTimeout}).DialContext,
	}
	if err := telemetry.FromEnvironment(&o); err != nil {
		return err
	}
	if o.MetricsEvery != 0 && o.Endpoint == "" {
		return fmt.Errorf("%s asks for metrics by OTLP and no collector is named: set %s to its OTLP/HTTP base URL, as http://collector.observability:4318",
			contract.EnvMetricsExporter, contract.EnvCollectorEndpoint)
	}
	m, err := telemetry.NewMeter(o, metrics)
	if err != nil || m == nil {
		return err
	}
	return mgr.Add(meter{m})
}

// meter is a Meter that the manager runs.
type meter struct{ *telemetry.Meter }

// Start implements manager.Runnable.
func (m meter) Start(ctx context.Context) error {
	m.Run(ctx)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastExport)
	defer cancel()
	m.Close(last)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: a replica that waits has metrics too.
func (meter) NeedLeaderElection() bool { return false }
