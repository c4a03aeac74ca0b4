package soap

import (
	"encoding/json"
	"strings"
	"testing"
)

func custodyMapping(t *testing.T) *mapping {
	t.Helper()
	m, err := newMapping(mappingOptions{
		Namespace: "urn:police:custody:1", Prefixes: map[string]string{"p": "urn:police:person:2"}, Arrays: []string{"Charge"}, Order: []string{"Person", "Charge"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Names in JSON are the ones that are declared, whatever prefixes a sender uses.
func TestJSONOfAPayload(t *testing.T) {
	const want = `{"RegisterArrest":{"@xsi:type":"per:Arrest","Person":{"p:Surname":"Söderström"},"Charge":[{"@code":"T1","#text":"Theft & more"}]}}`
	e, err := parse([]byte(registerEnvelope), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := custodyMapping(t).toJSON(e.payload)
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

// What is declared is the same when it comes back.
func TestThereAndBack(t *testing.T) {
	m := custodyMapping(t)
	for _, payload := range []string{
		`<RegisterArrest xmlns="urn:police:custody:1"><Note xml:lang="cy" lang="x">Siân</Note></RegisterArrest>`,
		`<RegisterArrest xmlns="urn:police:custody:1" xmlns:p="urn:police:person:2" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><Person><p:Surname p:kind="1" xsi:nil="true"></p:Surname></Person><Charge>a &lt; b</Charge><Charge>c</Charge></RegisterArrest>`,
	} {
		text, err := m.toJSON([]byte(payload))
		if err != nil {
			t.Errorf("%s: %v", payload, err)
			continue
		}
		back, err := m.toXML(text)
		if err != nil || strings.ReplaceAll(string(back), "/>", "></p:Surname>") != payload {
			t.Errorf("%s has become %s by %s, %v", payload, back, text, err)
		}
	}
}

func TestPayloadOfJSON(t *testing.T) {
	m := custodyMapping(t)
	for body, want := range map[string]string{
		`{"RegisterArrest":{"Charge":[{"@code":"T1","#text":"a<b"}],"Person":{"p:Surname":"Ö"}}}`: `<RegisterArrest xmlns="urn:police:custody:1" xmlns:p="urn:police:person:2"><Person><p:Surname>Ö</p:Surname></Person><Charge code="T1">a&lt;b</Charge></RegisterArrest>`,
		`{"p:Find":null}`:                       `<p:Find xmlns="urn:police:custody:1" xmlns:p="urn:police:person:2"/>`,
		`{"Find":{"@xmlns":"urn:x","Id":1.50}}`: `<Find xmlns="urn:x"><Id>1.50</Id></Find>`,
		`{"Find":{"Id":{"@xsi:nil":true}}}`:     `<Find xmlns="urn:police:custody:1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><Id xsi:nil="true"/></Find>`,
		`{"Find":{"@at":"a>b","@p:k":"1"}}`:     `<Find xmlns="urn:police:custody:1" xmlns:p="urn:police:person:2" at="a&gt;b" p:k="1"/>`,
	} {
		got, err := m.toXML([]byte(body))
		if err != nil || string(got) != want {
			t.Errorf("%s:\n%s, %v\nwant\n%s", body, got, err, want)
			continue
		}
		if _, err := parse(build(version12, nil, got), ""); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
	for _, body := range []string{`[1]`, `{"a":1,"b":2}`, `{}`, `"x"`, `{"a b":1}`} {
		if got, err := m.toXML([]byte(body)); err == nil {
			t.Errorf("%s became %s", body, got)
		}
	}
}

func FuzzToJSON(f *testing.F) {
	for _, name := range []string{"custody-digest-1.1.xml", "court-addressing-1.2.xml", "register-rpc-1.1.xml"} {
		f.Add(fixture(f, name))
	}
	f.Add([]byte(envelope12("", `<a xmlns="urn:police:custody:1" xmlns:p="urn:police:person:2" p:b="1"><p:c xml:lang="cy">d<![CDATA[<e>]]></p:c></a>`)))
	m, err := newMapping(mappingOptions{Namespace: "urn:police:custody:1", Prefixes: map[string]string{"p": "urn:police:person:2"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parse(body, "")
		if err != nil || e.payload == nil {
			return
		}
		text, err := m.toJSON(e.payload)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q has become %q", e.payload, text)
		}
	})
}

func TestMappingsThatAreNone(t *testing.T) {
	for want, o := range map[string]mappingOptions{
		"stand for one namespace":  {Prefixes: map[string]string{"a": "urn:a", "b": "urn:a"}},
		"stands for a namespace":   {Prefixes: map[string]string{"a": ""}},
		"is no name of an element": {Arrays: []string{"a b"}},
	} {
		if _, err := newMapping(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
