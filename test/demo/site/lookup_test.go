package site_test

import (
	"encoding/json"
	"testing"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// What the court's case API answers becomes what custody may see, whatever it is.
func TestLookupShowsWhatIsForCustody(t *testing.T) {
	var route busv1alpha1.Route
	read(t, "lookup.yaml", 2, &route)
	filter, err := steps.CompileFilter(string(route.Spec.Filter))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/cases/C-1": true, "/stats": false, "": false} {
		request := &sdk.Request{Method: "GET", Path: path}
		request.Expose()
		if got, err := filter.Match(&request.Message); err != nil || got != want {
			t.Errorf("a request of %q: %t, %v", path, got, err)
		}
	}
	transform, err := steps.CompileTransform(route.Spec.Call.Response.Steps[0].Transform.JQ)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status            int
		contentType, body string
		want              string
	}{
		{
			200, "application/json", `{"caseId": "C-1", "received": "2026-03-03T15:52:30Z", "keys": ["k"], "requests": 1, "body": {"defendant": {"surname": "Ash", "address": "x"}, "charges": [{"code": "c", "title": "Theft"}], "court": {"code": "NMM01"}}}`,
			`{"caseId":"C-1","charges":["Theft"],"court":{"code":"NMM01"},"defendant":"Ash","receivedByCourt":"2026-03-03T15:52:30Z"}`,
		},
		{404, "text/plain; charset=utf-8", "404 page not found\n", `{"detail":"404 page not found"}`},
		{500, "application/json", `{"error": 1}`, `{"detail":{"error":1}}`},
		{503, "", "", `{"detail":null}`},
	} {
		answer := &sdk.Answer{Status: c.status}
		answer.ContentType, answer.Format, answer.Data = c.contentType, sdk.FormatOf(c.contentType), []byte(c.body)
		answer.Expose()
		got, ok, err := transform.Apply(t.Context(), &answer.Message)
		if err != nil || !ok {
			t.Errorf("%d: %t %v", c.status, ok, err)
			continue
		}
		var sorted any
		if err := json.Unmarshal(got, &sorted); err != nil {
			t.Fatal(err)
		}
		if got, _ = json.Marshal(sorted); string(got) != c.want {
			t.Errorf("%d becomes %s, want %s", c.status, got, c.want)
		}
	}
}
