package contract

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestTablePermissions(t *testing.T) {
	operation, err := json.Marshal(EventOperation{Table: &TableOperation{Name: "wards", Key: "data.code"}})
	if err != nil {
		t.Fatal(err)
	}
	look := func(table string) []Step { return []Step{{Enrich: &Enrich{Table: table}}} }
	routes := []Route{
		{Integration: "in", Operation: operation, Steps: look("codes")}, {Integration: "in", Operation: operation, Steps: look("codes")},
		{Integration: "in", Operation: json.RawMessage(`{"type":"x"}`), Steps: []Step{{Enrich: &Enrich{Service: "svc"}}, {Filter: "true"}}}, {Integration: "in"},
	}
	read, written := ReadTables(routes), WrittenTables(routes)
	if want := []TableRef{{"in", "codes"}}; !slices.Equal(read, want) {
		t.Errorf("read: %v", read)
	}
	if want := []TableRef{{"in", "wards"}}; !slices.Equal(written, want) {
		t.Errorf("written: %v", written)
	}
	if got := EnrichServices(routes); !slices.Equal(got, []ServiceRef{{Integration: "in", Service: "svc"}}) {
		t.Errorf("services: %v", got)
	}
	p := Permissions{Publish: []string{"x"}}.WithTables("ns", read, written)
	want := []string{
		"x", "table.ns.in.wards.*", "bus.API.DIRECT.GET.ns_in_table_codes.table.ns.in.codes.*", "bus.API.DIRECT.GET.ns_in_table_wards.table.ns.in.wards.*",
	}
	if !slices.Equal(p.Publish, want) {
		t.Errorf("%q, want %q", p.Publish, want)
	}
	if p := (Permissions{Publish: []string{"x"}}).WithTables("ns", nil, nil); len(p.Publish) != 1 {
		t.Errorf("%q", p.Publish)
	}
}
