package systems

import (
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
)

func TestSOAPIsChecked(t *testing.T) {
	source := func(s v1alpha1.SOAPSource) v1alpha1.ConnectorSpec {
		return v1alpha1.ConnectorSpec{Source: &v1alpha1.Source{SOAP: &s}}
	}
	names := func(n v1alpha1.SOAPNames) v1alpha1.ConnectorSpec { return source(v1alpha1.SOAPSource{SOAPNames: n}) }
	for want, spec := range map[string]v1alpha1.ConnectorSpec{
		"":                           source(v1alpha1.SOAPSource{Response: `<a xmlns="urn:a"/>`, WSDL: &v1alpha1.WSDL{Inline: `<?xml version="1.0"?><a/>`}}),
		"spec.source.soap.response":  source(v1alpha1.SOAPSource{Response: `<a>`}),
		"without XML declaration":    source(v1alpha1.SOAPSource{Response: `<?xml version="1.0"?><a/>`}),
		"soap.wsdl.inline":           source(v1alpha1.SOAPSource{WSDL: &v1alpha1.WSDL{Inline: `<!DOCTYPE a><a/>`}}),
		"has the prefix a already":   names(v1alpha1.SOAPNames{Prefixes: map[string]v1alpha1.SOAPNamespace{"a": "urn:a", "b": "urn:a"}}),
		"has the prefix xsi already": names(v1alpha1.SOAPNames{Prefixes: map[string]v1alpha1.SOAPNamespace{"i": "http://www.w3.org/2001/XMLSchema-instance"}}),
		"soap.arrays":                names(v1alpha1.SOAPNames{Arrays: []string{"a b"}}),
		"soap.order":                 names(v1alpha1.SOAPNames{Order: []string{"<"}}),
		"spec.sink.soap.call.action": {Sink: &v1alpha1.Sink{SOAP: &v1alpha1.SOAPSink{URL: "https://a", Call: &v1alpha1.SOAPCall{Action: "{"}}}},
		"spec.service.soap.call":     {Service: &v1alpha1.Service{SOAP: &v1alpha1.SOAPService{URL: "https://a", Call: &v1alpha1.SOAPServiceCall{Action: "{data."}}}},
	} {
		s, err := Of(&v1alpha1.Connector{Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		errs := s.Check()
		if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)) {
			t.Errorf("%q: %v", want, errs)
		}
	}
	envelope := OperationOf(&v1alpha1.Operation{SOAP: &v1alpha1.SOAPCall{Content: v1alpha1.SOAPContentEnvelope}})
	for security, fits := range map[v1alpha1.SOAPSecurity]bool{"": true, v1alpha1.SOAPSecurityNone: true, v1alpha1.SOAPSecurityDigest: false} {
		s, err := Of(&v1alpha1.Connector{Spec: v1alpha1.ConnectorSpec{Sink: &v1alpha1.Sink{SOAP: &v1alpha1.SOAPSink{URL: "https://a", Security: security}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Fits(envelope); (err == nil) != fits {
			t.Errorf("security %q, and whole envelopes: %v", security, err)
		}
		if err := s.Fits(OperationOf(&v1alpha1.Operation{SOAP: &v1alpha1.SOAPCall{}})); err != nil {
			t.Error(err)
		}
	}
	if op := OperationOf(&v1alpha1.Operation{SOAP: &v1alpha1.SOAPCall{Action: "}"}}); op.Name != "soap" || len(op.Check(nil)) != 1 {
		t.Errorf("%+v", op)
	}
}
