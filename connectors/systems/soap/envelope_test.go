package soap

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const registerEnvelope = `<?xml version="1.0" encoding="ISO-8859-1"?>
<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:per="urn:police:person:2">
 <SOAP-ENV:Header>
  <h:Trace xmlns:h="urn:h" SOAP-ENV:mustUnderstand="1">x</h:Trace>
  <h:Other xmlns:h="urn:h" SOAP-ENV:actor="urn:somebody-else" SOAP-ENV:mustUnderstand="1"/>
 </SOAP-ENV:Header>
 <SOAP-ENV:Body>
  <ns1:RegisterArrest xmlns:ns1="urn:police:custody:1" xsi:type="per:Arrest"><ns1:Person><per:Surname>S` + "\xf6" + `derstr` + "\xf6" + `m</per:Surname></ns1:Person><ns1:Charge code="T1">Theft &amp; more</ns1:Charge></ns1:RegisterArrest>
 </SOAP-ENV:Body>
</SOAP-ENV:Envelope>`

func TestParse(t *testing.T) {
	e, err := parse([]byte(registerEnvelope), "")
	if err != nil {
		t.Fatal(err)
	}
	want := `<ns1:RegisterArrest xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:per="urn:police:person:2" xmlns:ns1="urn:police:custody:1" xsi:type="per:Arrest">` +
		`<ns1:Person><per:Surname>Söderström</per:Surname></ns1:Person><ns1:Charge code="T1">Theft &amp; more</ns1:Charge></ns1:RegisterArrest>`
	if diff := cmp.Diff(want, string(e.payload)); diff != "" {
		t.Error(diff)
	}
	if e.version != version11 || e.name != (xml.Name{Space: "urn:police:custody:1", Local: "RegisterArrest"}) {
		t.Errorf("version %d, name %v", e.version, e.name)
	}
	if len(e.headers) != 1 || !e.headers[0].mustUnderstand || e.headers[0].name.Local != "Trace" {
		t.Errorf("headers %+v: the one for somebody else is none of ours", e.headers)
	}
}

// envelope12 of a body.
func envelope12(header, body string) string {
	return `<e:Envelope xmlns:e="` + ns12 + `"><e:Header>` + header + `</e:Header><e:Body>` + body + `</e:Body></e:Envelope>`
}

func TestParseDefaultNamespace(t *testing.T) {
	e, err := parse([]byte(`<Envelope xmlns="`+ns12+`"><Body xmlns:q="urn:q"><a xmlns=""><b/></a></Body></Envelope>`), "")
	if err != nil {
		t.Fatal(err)
	}
	if string(e.payload) != `<a xmlns=""><b/></a>` || e.version != version12 {
		t.Errorf("%s", e.payload)
	}
	if e, err = parse([]byte(`<x:Envelope xmlns:x="`+ns12+`" xmlns="urn:default"><x:Body><a/></x:Body></x:Envelope>`), ""); err != nil || string(e.payload) != `<a xmlns="urn:default"/>` {
		t.Errorf("%v, %v", e, err)
	}
	if e, err = parse([]byte(envelope12("", "")), ""); err != nil || e.payload != nil {
		t.Errorf("an empty Body: %v, %v", e, err)
	}
}

func TestWhatIsNoEnvelope(t *testing.T) {
	for text, want := range map[string]string{
		``:                                   "no SOAP envelope",
		`<html><body>Gateway</body></html>`:  "outermost element is \"html\"",
		`{"a":1}`:                            "no SOAP envelope",
		`<!DOCTYPE x [<!ENTITY a "b">]><x/>`: "no SOAP envelope",
		`<Envelope xmlns="urn:other"/>`:      "neither of SOAP 1.1 nor",
		`<Envelope xmlns="` + ns11 + `"/>`:   "not one Body",
		`<Envelope xmlns="` + ns11 + `"><Body/><Body/></Envelope>`:               "not one Body",
		envelope12("", "<a/><b/>"):                                               "several elements",
		envelope12(strings.Repeat("<a/>", 100), "<b/>"):                          "more than 64 headers",
		envelope12("", strings.Repeat("<a>", 1000)+strings.Repeat("</a>", 1000)): "no SOAP envelope",
	} {
		if e, err := parse([]byte(text), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, %v, want %q", text, e, err, want)
		}
	}
	if _, err := parse([]byte(`<Envelope xmlns="urn:other"/>`), ""); !errors.Is(err, errVersion) {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, envelope, says string
		blame                blame
	}{
		{"1.1 client", `<s:Envelope xmlns:s="` + ns11 + `"><s:Body><s:Fault><faultcode>s:Client.Validation</faultcode><faultstring>no
			such court</faultstring><detail><e:code xmlns:e="urn:e">17</e:code></detail></s:Fault></s:Body></s:Envelope>`, "SOAP fault Client.Validation: no such court", blameSender},
		{"1.1 of the system's own", `<s:Envelope xmlns:s="` + ns11 + `"><s:Body><s:Fault><faultcode>x:DB-7</faultcode><faultstring>down</faultstring></s:Fault></s:Body></s:Envelope>`, "SOAP fault DB-7: down", blameUnknown},
		{"1.1 WS-Security", `<s:Envelope xmlns:s="` + ns11 + `"><s:Body><s:Fault><faultcode>wsse:FailedAuthentication</faultcode><faultstring>no</faultstring></s:Fault></s:Body></s:Envelope>`, "SOAP fault FailedAuthentication: no", blameCredentials},
		{"1.2", envelope12("", `<e:Fault><e:Code><e:Value>e:Receiver</e:Value><e:Subcode><e:Value>x:Busy</e:Value></e:Subcode></e:Code><e:Reason><e:Text xml:lang="cy">prysur</e:Text><e:Text xml:lang="en">busy</e:Text></e:Reason></e:Fault>`),
			"SOAP fault Receiver.Busy: busy", blameReceiver},
		{"1.2 WS-Security", envelope12("", `<e:Fault><e:Code><e:Value>e:Sender</e:Value><e:Subcode><e:Value>w:FailedAuthentication</e:Value></e:Subcode></e:Code></e:Fault>`), "SOAP fault Sender.FailedAuthentication", blameCredentials},
	} {
		e, err := parse([]byte(c.envelope), "")
		if err != nil || e.fault == nil {
			t.Errorf("%s: %v, %v", c.name, e, err)
			continue
		}
		if e.fault.Error() != c.says || e.fault.blame() != c.blame {
			t.Errorf("%s: %q, %d", c.name, e.fault, e.fault.blame())
		}
	}
}

// What is rendered is understood again, in both versions.
func TestRenderedFaults(t *testing.T) {
	for _, v := range []version{version11, version12} {
		for _, f := range []*fault{{code: "Client", reason: `<&"`}, {code: "Server", reason: "later"}, {code: "MustUnderstand"}, denied("FailedAuthentication", "no")} {
			e, err := parse(build(v, nil, f.render(v)), "")
			if err != nil || e.fault == nil || e.version != v {
				t.Fatalf("%s: %v", f.render(v), err)
			}
			if e.fault.reason != f.reason || e.fault.blame() != f.blame() {
				t.Errorf("%s: %v", f.render(v), e.fault)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(registerEnvelope))
	f.Add([]byte(envelope12(`<a xmlns="urn:a"/>`, `<b xmlns:c="urn:c" c:d="e"/>`)))
	for _, name := range []string{"custody-digest-1.1.xml", "court-addressing-1.2.xml", "register-rpc-1.1.xml", "court-fault-1.2.xml"} {
		f.Add(fixture(f, name))
	}
	f.Add(build(version11, nil, denied("FailedAuthentication", "no").render(version11)))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parse(body, "")
		if err != nil || e.payload == nil {
			return
		}
		// What was taken out stands by itself.
		again, err := parse(build(e.version, nil, e.payload), "")
		if err != nil {
			t.Fatalf("%q: %v", e.payload, err)
		}
		if again.name != e.name {
			t.Fatalf("%v has become %v", e.name, again.name)
		}
	})
}
