package steps

import (
	"errors"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestEntry(t *testing.T) {
	e, err := CompileEntry(contract.TableOperation{Key: "data.code", Remove: `type == "closed" || data.state == 1`})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		format, body, kind string
		key                string
		removes            bool
		fails              string
	}{
		{body: `{"code":"a b","state":0}`, key: "a b"},
		{body: `{"code":7,"state":1}`, key: "7", removes: true},
		{body: `{"code":true}`, kind: "closed", key: "true", removes: true},
		{body: `{"code":"a"}`, key: "a", fails: "remove: no such key: state"},
		{body: `{}`, kind: "closed", removes: true, fails: "key: no such key: code"},
		{body: `{"code":""}`, kind: "closed", removes: true, fails: "key: it has 0 bytes"},
		{body: `{"code":"` + strings.Repeat("x", 257) + `"}`, kind: "closed", removes: true, fails: "key: it has 257 bytes"},
	} {
		m := jsonMessage(c.body)
		m.Type = c.kind
		key, err := e.Key(m)
		removes, removeErr := e.Removes(m)
		if err = errors.Join(err, removeErr); c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: %v, want %q", c.body, err, c.fails)
		}
		if key != c.key || removes != c.removes {
			t.Errorf("%s: %q, removes %v", c.body, key, removes)
		}
	}
	e, err = CompileEntry(contract.TableOperation{Key: "subject"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		format, body string
		removes      bool
	}{
		{sdk.FormatJSON, " null ", true}, {sdk.FormatJSON, `"null"`, false}, {sdk.FormatText, "null", false}, {sdk.FormatText, "", true}, {sdk.FormatXML, "", true}, {"", "null", true},
	} {
		m := &sdk.Message{Subject: "s", Format: c.format, Data: []byte(c.body)}
		if removes, err := e.Removes(m); err != nil || removes != c.removes {
			t.Errorf("%s %q: %v %v", c.format, c.body, removes, err)
		}
	}
	var f *FieldError
	if _, err := CompileEntry(contract.TableOperation{Key: "data."}); !errors.As(err, &f) || f.Field != "table.key" {
		t.Error(err)
	}
	if _, err := CompileEntry(contract.TableOperation{Key: "id", Remove: "1"}); !errors.As(err, &f) || f.Field != "table.remove" {
		t.Error(err)
	}
}

func TestEnrichLooksUp(t *testing.T) {
	table := func(s *contract.Enrich) { *s = contract.Enrich{Table: "wards", Key: "data.ward", Into: "ward"} }
	e := enrichOf(t, table)
	if key, err := e.Key(jsonMessage(`{"ward":"N 1"}`)); err != nil || key != "N 1" {
		t.Errorf("%q, %v", key, err)
	}
	if _, err := e.Key(jsonMessage(`{}`)); err == nil || err.Error() != "table.key: no such key: ward" {
		t.Error(err)
	}
	if _, err := e.Key(&sdk.Message{Claim: struct{ sdk.Claim }{}}); !errors.Is(err, sdk.ErrTooLarge) {
		t.Error(err)
	}
	m := jsonMessage(`{"ward":"N1"}`)
	if err := e.Merge(m, answerOf(sdk.FormatJSON, `{"name":"North"}`)); err != nil || string(m.Data) != `{"ward":{"name":"North"}}` {
		t.Errorf("%s, %v", m.Data, err)
	}
	var f *FieldError
	for _, s := range []contract.Enrich{
		{Table: "wards", Key: "data.", Into: "ward"}, {Table: "wards", Key: "id", Into: "ward", Default: "nil"}, {Table: "wards", Key: "id"}, {Table: "wards", Service: "svc", Method: "GET", Key: "id", Into: "x"},
	} {
		if _, err := Compile(contract.Step{Enrich: &s}); !errors.As(err, &f) || !strings.HasPrefix(f.Field, "enrich") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
