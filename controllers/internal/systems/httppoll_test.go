package systems

import (
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
)

func TestPollIsChecked(t *testing.T) {
	with := func(change func(*v1alpha1.HTTPPollItems)) v1alpha1.HTTPPollSource {
		items := &v1alpha1.HTTPPollItems{List: "data.items", ID: "data.id", NextPage: "data.next", Cursor: v1alpha1.HTTPPollCursor{Item: "data.at", Parameter: "since"}}
		change(items)
		return v1alpha1.HTTPPollSource{URL: "https://court.example:8443/list?from=1", Items: items}
	}
	for want, source := range map[string]v1alpha1.HTTPPollSource{
		"":                                    with(func(*v1alpha1.HTTPPollItems) {}),
		"spec.source.httpPoll.items.list":     with(func(i *v1alpha1.HTTPPollItems) { i.List = "data." }),
		"spec.source.httpPoll.items.id":       with(func(i *v1alpha1.HTTPPollItems) { i.ID = "(" }),
		"spec.source.httpPoll.items.nextPage": with(func(i *v1alpha1.HTTPPollItems) { i.NextPage = "nobody" }),
		"cursor.item":                         with(func(i *v1alpha1.HTTPPollItems) { i.Cursor.Item = "1 +" }),
		"cursor.answer":                       with(func(i *v1alpha1.HTTPPollItems) { i.Cursor = v1alpha1.HTTPPollCursor{Answer: "1 +"} }),
		"the query of url has it already":     with(func(i *v1alpha1.HTTPPollItems) { i.Cursor.Parameter = "from" }),
		"spec.source.httpPoll.url":            {URL: "https://a/%zz"},
	} {
		s, err := Of(&v1alpha1.Connector{Spec: v1alpha1.ConnectorSpec{Source: &v1alpha1.Source{HTTPPoll: &source}}})
		if err != nil {
			t.Fatal(err)
		}
		errs := s.Check()
		if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)) {
			t.Errorf("%q: %v", want, errs)
		}
		if want == "" && (s.Endpoint != "https://court.example:8443/list" || len(s.Ports) != 1 || s.Ports[0] != 8443) {
			t.Errorf("endpoint %s, ports %v", s.Endpoint, s.Ports)
		}
	}
}
