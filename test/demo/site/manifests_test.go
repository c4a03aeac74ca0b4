package site_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/site"
)

const root = "../../.."

// The manifests do to each record what arrests.Fate says must become of it. This needs no cluster.
func TestManifestsAndRecordsAgree(t *testing.T) {
	var route busv1alpha1.Route
	read(t, "route.yaml", 0, &route)
	var database, caseAPI busv1alpha1.Connector
	read(t, "connectors.yaml", 1, &database)
	read(t, "connectors.yaml", 2, &caseAPI)
	c := compiled{columns: map[string]*steps.Value{}}
	var err error
	if c.filter, err = steps.CompileFilter(string(route.Spec.Filter)); err != nil {
		t.Fatal(err)
	}
	if c.transform, err = steps.CompileTransform(route.Spec.Steps[0].Transform.JQ); err != nil {
		t.Fatal(err)
	}
	if c.path, err = steps.CompileTemplate(string(caseAPI.Spec.Sink.HTTP.Request.Path)); err != nil {
		t.Fatal(err)
	}
	for name, expression := range database.Spec.Sink.Postgres.Write.Columns {
		if c.columns[name], err = steps.CompileValue(string(expression)); err != nil {
			t.Fatalf("column %s: %v", name, err)
		}
	}
	f, err := os.Open(filepath.Join(root, "test/demo/data/arrests.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := arrests.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		c.check(t, &lines[i])
	}
}

// compiled is what the manifests do to a message.
type compiled struct {
	filter    *steps.Filter
	transform *steps.Transform
	path      *steps.Template
	columns   map[string]*steps.Value
}

func (c *compiled) check(t *testing.T, line *arrests.Line) {
	t.Helper()
	message := &sdk.Message{ID: line.ArrestID, Type: site.EventType, Format: "JSON", ContentType: "application/json", Time: time.Now(), Data: line.Body}
	passes, err := c.filter.Match(message)
	if err != nil {
		t.Fatalf("%s: %v", line.ArrestID, err)
	}
	fate := line.Fate()
	if passes == fate.Filtered {
		t.Fatalf("%s: the filter says %t, and its fate is %+v", line.ArrestID, passes, fate)
	}
	if !passes {
		return
	}
	body, ok, err := c.transform.Apply(t.Context(), message)
	if err != nil || !ok {
		t.Fatalf("%s: transform: %t %v", line.ArrestID, ok, err)
	}
	message.SetData(body)
	path, err := c.path.Expand(message, url.PathEscape)
	if err != nil || path != "/cases/"+line.CaseID() {
		t.Errorf("%s: path %s, %v", line.ArrestID, path, err)
	}
	row := map[string]any{}
	for name, value := range c.columns {
		if row[name], err = value.Eval(message); err != nil {
			t.Errorf("%s: column %s: %v", line.ArrestID, name, err)
		}
	}
	if row["case_id"] != line.CaseID() || row["surname"] != line.Detainee.Surname {
		t.Errorf("%s: row %v", line.ArrestID, row)
	}
	if (row["date_of_birth"] == nil) != fate.DatabaseRefuses || (row["court_code"] == nil) != fate.CaseAPIRefuses {
		t.Errorf("%s: row %v, and its fate is %+v", line.ArrestID, row, fate)
	}
}

func read(t *testing.T, file string, number int, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, site.Folder, file))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := site.Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(objects[number].Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatal(err)
	}
}
