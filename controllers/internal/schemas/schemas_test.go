package schemas

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/validate"
)

// maps are ConfigMaps by their names, and both a Watch and a client.Reader. It counts what is read.
type maps struct {
	client.Reader
	all   map[string]*corev1.ConfigMap
	reads int
}

func (m *maps) ResourceVersion(_ context.Context, name types.NamespacedName) (string, error) {
	if c := m.all[name.Name]; c != nil {
		return c.ResourceVersion, nil
	}
	return "", nil
}

func (m *maps) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	m.reads++
	c := m.all[key.Name]
	if c == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, key.Name)
	}
	c.DeepCopyInto(into.(*corev1.ConfigMap))
	return nil
}

func (m *maps) put(name, version, text string) {
	m.all[name] = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}, Data: map[string]string{"k": text}}
}

func newResolver() (*Resolver, *maps) {
	m := &maps{all: map[string]*corev1.ConfigMap{}}
	return &Resolver{Watch: m, Live: m, Valid: validate.NewMemo(validate.Allowed{})}, m
}

func routeWith(sources ...*v1alpha1.SchemaSource) *v1alpha1.Route {
	r := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r", UID: "u", Generation: 1}}
	for _, s := range sources {
		r.Spec.Steps = append(r.Spec.Steps, v1alpha1.Step{Validate: &v1alpha1.Validate{JSONSchema: s}})
	}
	return r
}

func from(name string) *v1alpha1.SchemaSource {
	return &v1alpha1.SchemaSource{ConfigMap: &v1alpha1.ConfigMapKey{Name: name, Key: "k"}}
}

func TestTextsAreReadOncePerVersion(t *testing.T) {
	r, m := newResolver()
	m.put("a", "1", `{"type":"object"}`)
	route := routeWith(from("a"), &v1alpha1.SchemaSource{Inline: "true"}, from("a"))
	for range 3 {
		got, err := r.Route(t.Context(), route)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{`{"type":"object"}`, "true", `{"type":"object"}`} {
			if text := got.Spec.Steps[i].Validate.JSONSchema.Inline; text != want {
				t.Errorf("step %d: %q, want %q", i, text, want)
			}
		}
	}
	if m.reads != 1 || route.Spec.Steps[0].Validate.JSONSchema.Inline != "" {
		t.Errorf("read %d times, or the Route itself was changed", m.reads)
	}
	m.put("a", "2", "false")
	got, err := r.Route(t.Context(), route)
	if err != nil || got.Spec.Steps[2].Validate.JSONSchema.Inline != "false" || m.reads != 2 {
		t.Errorf("%v, %d reads", err, m.reads)
	}
	plain := routeWith(&v1alpha1.SchemaSource{Inline: "true"})
	if got, err := r.Route(t.Context(), plain); got != plain || err != nil || m.reads != 2 {
		t.Error("a Route without ConfigMaps costs something", err)
	}
}

func TestWhatIsMissingOrWrong(t *testing.T) {
	r, m := newResolver()
	m.put("good", "1", `{}`)
	m.put("bad", "1", `{"type":"text"}`)
	m.put("large", "1", `"`+strings.Repeat("x", 256<<10)+`"`)
	m.put("empty", "1", ``)
	for name, want := range map[string]string{
		"good": "", "nowhere": "SchemaNotFound/ResolvedRefs: there is no ConfigMap nowhere in namespace ns",
		"bad":   "InvalidSchema/Accepted: spec.steps[0].validate.jsonSchema.configMap: line 1, column 9: at /type",
		"large": "InvalidSchema/Accepted: the schema in ConfigMap large, key k, has 257 KiB", "empty": "SchemaNotFound/ResolvedRefs: ConfigMap empty has nothing under the key k",
	} {
		_, err := r.Route(t.Context(), routeWith(from(name)))
		got := ""
		if _, e := outcome.Of(err); e != nil {
			got = fmt.Sprintf("%s/%s: %s", e.Reason, e.Condition, err)
		}
		if !strings.HasPrefix(got, want) || (want == "") != (err == nil) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	c := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "c"}}
	c.Spec.Source = &v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{Path: "/"}, Schema: from("bad")}
	if _, err := r.Connector(t.Context(), c); err == nil || !strings.HasPrefix(err.Error(), "spec.source.schema.configMap: line 1, column 9") {
		t.Error(err)
	}
	c.Spec.Source.Schema = from("good")
	if got, err := r.Connector(t.Context(), c); err != nil || got.Spec.Source.Schema.Inline != "{}" {
		t.Error(err)
	}
	avro := routeWith()
	avro.UID = "another"
	avro.Spec.Steps = []v1alpha1.Step{{Convert: &v1alpha1.Convert{From: "JSON", To: "Avro", Avro: &v1alpha1.AvroFormat{Schema: *from("good")}}}}
	if _, err := r.Route(t.Context(), avro); err == nil || !strings.HasPrefix(err.Error(), "spec.steps[0].convert.avro.schema.configMap: it is no Avro schema") {
		t.Error(err)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	r, m := newResolver()
	for i := range 100 {
		name := fmt.Sprintf("m%d", i)
		m.put(name, "1", `{"description":"`+strings.Repeat("x", 250<<10)+`"}`)
		if _, err := r.Route(t.Context(), routeWith(from(name))); err != nil {
			t.Fatal(err)
		}
		if r.bytes > maxKept {
			t.Fatalf("%d bytes are kept after %d", r.bytes, i)
		}
	}
	sum := 0
	for _, kept := range r.kept {
		sum += len(kept.text)
	}
	if sum != r.bytes || sum == 0 {
		t.Errorf("%d bytes are kept and %d counted", sum, r.bytes)
	}
}
