package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers"
)

// generous bounds what a loaded machine may take.
const generous = 2 * time.Minute

// sent is what a collector got in one request.
type sent struct {
	ResourceMetrics []struct {
		Resource struct {
			Attributes []attribute `json:"attributes"`
		} `json:"resource"`
		ScopeMetrics []struct {
			Metrics []struct {
				Name  string `json:"name"`
				Sum   points `json:"sum"`
				Gauge points `json:"gauge"`
			} `json:"metrics"`
		} `json:"scopeMetrics"`
	} `json:"resourceMetrics"`
}

type attribute struct {
	Key   string `json:"key"`
	Value struct {
		String string `json:"stringValue"`
	} `json:"value"`
}

type points struct {
	DataPoints []struct {
		Attributes []attribute `json:"attributes"`
		Value      float64     `json:"asDouble"`
	} `json:"dataPoints"`
}

// value of the series of a metric with a label; zero where there is none.
func (s *sent) value(metric, label, is string) float64 {
	for _, r := range s.ResourceMetrics {
		for _, scope := range r.ScopeMetrics {
			for _, m := range scope.Metrics {
				if m.Name != metric {
					continue
				}
				for _, p := range append(m.Sum.DataPoints, m.Gauge.DataPoints...) {
					for _, a := range p.Attributes {
						if a.Key == label && a.Value.String == is && p.Value != 0 {
							return p.Value
						}
					}
				}
			}
		}
	}
	return 0
}

// service that sent it.
func (s *sent) service() string {
	var out []string
	for _, r := range s.ResourceMetrics {
		for _, a := range r.Resource.Attributes {
			out = append(out, a.Key+"="+a.Value.String)
		}
	}
	return strings.Join(out, " ")
}

// collector hands on what it gets while the test waits for it.
func collector(t *testing.T) (url string, got <-chan sent) {
	t.Helper()
	requests := make(chan sent)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var one sent
		if err := json.NewDecoder(r.Body).Decode(&one); err != nil || r.URL.Path != "/v1/metrics" {
			t.Errorf("%s: %v", r.URL.Path, err)
			return
		}
		select {
		case requests <- one:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

// TestOperatorSendsItsMetrics: the manager as main runs it, on a real API server, and what a collector gets of it.
func TestOperatorSendsItsMetrics(t *testing.T) {
	url, got := collector(t)
	ctrl.SetLogger(logr.Discard())
	env := &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join("..", "..", "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		env.BinaryAssetsDirectory = filepath.Join("..", "..", "out", "bin")
	}
	admin, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	api, err := client.New(admin, client.Options{Scheme: controllers.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "metip-system"
	for _, obj := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "custody"}},
	} {
		if err := api.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	t.Setenv(contract.EnvPodName, "metip-manager-1")
	t.Setenv(contract.EnvCollectorEndpoint, url)
	t.Setenv(contract.EnvMetricsExporter, "otlp")
	t.Setenv(contract.EnvMetricsInterval, "1000")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, flags{operatorNamespace: namespace, image: "localhost/metip:test", metricsAddress: "0", probeAddress: "0", workers: 1, resync: time.Minute})
	}()
	limit := time.After(generous)
	for seen := false; !seen; {
		select {
		case one := <-got:
			if s := one.service(); !strings.Contains(s, "service.name=metip-manager service.namespace=metip-system service.instance.id=metip-manager-1") {
				t.Fatal("whose metrics are they?", s)
			}
			seen = one.value("controller_runtime_reconcile_total", "controller", "integration") > 0 && one.value("metip_objects", "kind", "Integration") == 1
		case err := <-ended:
			t.Fatal("the manager ended:", err)
		case <-limit:
			t.Fatal("the collector never got both")
		}
	}
	stop()
	for { // once more, at the end
		select {
		case <-got:
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		case <-limit:
			t.Fatal("the manager does not end")
		}
	}
}

// TestMeterNeedsACollector: nothing is added unless it is asked for, and what is asked for by halves is refused with what to do.
func TestMeterNeedsACollector(t *testing.T) {
	for _, c := range []struct{ endpoint, exporter, err string }{
		{},
		{endpoint: "http://collector:4318"},
		{endpoint: "http://collector:4318", exporter: "prometheus"},
		{exporter: "otlp", err: "set OTEL_EXPORTER_OTLP_ENDPOINT to its OTLP/HTTP base URL"},
		{endpoint: "collector:4318", exporter: "otlp", err: "is no http:// or https:// URL"},
		{endpoint: "http://collector:4318", exporter: "grpc", err: "OTEL_METRICS_EXPORTER must be otlp, prometheus or none"},
	} {
		t.Setenv(contract.EnvCollectorEndpoint, c.endpoint)
		t.Setenv(contract.EnvMetricsExporter, c.exporter)
		err := addMeter(nil, "metip-system", nil) // a manager would be needed to add one
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
