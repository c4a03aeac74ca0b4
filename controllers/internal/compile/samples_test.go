package compile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/systems"
)

// secrets of a pod that never runs.
type secrets struct{}

func (secrets) Get(string) ([]byte, error) { return []byte("secret"), nil }
func (secrets) Version() uint64            { return 1 }
func (secrets) Changed() <-chan struct{}   { return nil }

// What the operator compiles of every sample is what the data plane reads: no field has another name on the other side, and every system
// takes its options.
func TestDataPlaneTakesEverySample(t *testing.T) {
	connectors, routes := 0, 0
	for _, object := range samples(t) {
		switch object.GetKind() {
		case "Connector":
			connectors++
			c := into[v1alpha1.Connector](t, object)
			t.Run(c.Name, func(t *testing.T) { start(t, c, nil) })
		case "Route":
			r := into[v1alpha1.Route](t, object)
			if r.Spec.Call == nil {
				continue
			}
			routes++
			asker := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ask", UID: "u"}}
			asker.Spec.Source = &v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{Path: "/", Exchange: v1alpha1.ExchangeRequestReply}}
			asker.Spec.Auth = &v1alpha1.Auth{Anonymous: &v1alpha1.AnonymousAuth{}}
			t.Run(r.Name, func(t *testing.T) {
				call := compile.Call(integration(), r)
				start(t, asker, []contract.Call{call})
				for _, s := range append(call.Request, call.Response...) {
					if _, err := steps.Compile(s); err != nil {
						t.Errorf("%s: %v", s.Name, err)
					}
				}
			})
		}
	}
	if connectors < 10 || routes < 2 {
		t.Errorf("%d Connectors and %d Routes with call among the samples: where are they?", connectors, routes)
	}
}

// start the system of a Connector as its pods would, as far as nothing runs yet.
func start(t *testing.T, c *v1alpha1.Connector, calls []contract.Call) {
	t.Helper()
	s, err := systems.Of(c)
	if err != nil {
		t.Fatal(err)
	}
	config, err := compile.Config(c, integration(), s, contract.Broker{URLs: []string{"tls://broker:4222"}, Replicas: 1}, nil, calls)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	read, err := engine.ParseConfig(raw)
	if err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	system, ok := catalog.Lookup(s.Name)
	if !ok {
		t.Fatalf("the data plane has no system %s", s.Name)
	}
	rt := sdk.Runtime{Config: read, Secrets: secrets{}, Log: slog.New(slog.DiscardHandler)}
	switch {
	case read.Source != nil:
		_, err = system.Source(rt, read.Source.System.Options)
	case read.Sink != nil:
		_, err = system.Sink(rt, read.Sink.System.Options)
	default:
		_, err = system.Service(rt, read.Service.System.Options)
	}
	if err != nil {
		t.Errorf("the system does not take %s: %v", raw, err)
	}
}

func integration() *v1alpha1.Integration {
	return &v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"}}
}

func samples(t *testing.T) (out []unstructured.Unstructured) {
	t.Helper()
	for _, pattern := range []string{"*.yaml", "demo/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("../../../config/samples", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
			for {
				var object unstructured.Unstructured
				if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				out = append(out, object)
			}
		}
	}
	return out
}

func into[T any](t *testing.T, object unstructured.Unstructured) *T {
	t.Helper()
	object.SetNamespace("ns")
	object.SetUID("uid")
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, out, true); err != nil {
		t.Fatalf("%s: %v", object.GetName(), err)
	}
	return out
}
