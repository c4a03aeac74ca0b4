package systems

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

func soapSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.SOAP == nil {
		return nil
	}
	options := c.Spec.Source.SOAP.DeepCopy()
	options.AllowFrom = nil // it becomes a NetworkPolicy, and its change concerns no pod
	return &System{
		Name: "soap", Role: RoleSource, Options: options, Listens: true, AllowFrom: c.Spec.Source.SOAP.AllowFrom, Endpoint: listenerEndpoint(c, options.Path),
		check: func(path *field.Path) field.ErrorList { return checkSOAPSource(options, path) },
	}
}

func checkSOAPSource(s *v1alpha1.SOAPSource, path *field.Path) field.ErrorList {
	errs := checkSOAPNames(&s.SOAPNames, path)
	if s.WSDL != nil {
		if err := steps.CheckXML(s.WSDL.Inline); err != nil {
			errs = append(errs, Invalid(path.Child("wsdl", "inline"), s.WSDL.Inline, err))
		}
	}
	if s.Response == "" {
		return errs
	}
	if err := steps.CheckXML(s.Response); err != nil {
		errs = append(errs, Invalid(path.Child("response"), s.Response, err))
	} else if strings.HasPrefix(strings.TrimSpace(s.Response), "<?") {
		errs = append(errs, field.Invalid(path.Child("response"), s.Response, "it is one element, without XML declaration"))
	}
	return errs
}

func checkSOAPNames(n *v1alpha1.SOAPNames, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if err := steps.CheckElements(n.Arrays); err != nil {
		errs = append(errs, field.Invalid(path.Child("arrays"), n.Arrays, err.Error()))
	}
	if err := steps.CheckElements(n.Order); err != nil {
		errs = append(errs, field.Invalid(path.Child("order"), n.Order, err.Error()))
	}
	known := map[v1alpha1.SOAPNamespace]string{"http://www.w3.org/2001/XMLSchema-instance": "xsi"}
	for _, prefix := range sortedKeys(n.Prefixes) {
		uri := n.Prefixes[prefix]
		if other, ok := known[uri]; ok && other != prefix {
			errs = append(errs, field.Invalid(path.Child("prefixes").Key(prefix), string(uri), "the namespace has the prefix "+other+" already"))
		}
		known[uri] = prefix
	}
	return errs
}

func soapSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.SOAP == nil {
		return nil
	}
	options := c.Spec.Sink.SOAP
	return &System{
		Name: "soap", Role: RoleSink, Options: options, Endpoint: options.URL, Ports: urlPorts(options.URL),
		check: func(path *field.Path) field.ErrorList { return checkSOAPCall(options.Call, path.Child("call")) },
		fits:  func(operation any) error { return fitsSOAP(options, operation) },
	}
}

// fitsSOAP: an envelope that is sent as it is has no room for the Connector's token.
func fitsSOAP(s *v1alpha1.SOAPSink, operation any) error {
	call, ok := operation.(*v1alpha1.SOAPCall)
	if !ok || call.Content != v1alpha1.SOAPContentEnvelope || s.Security == "" || s.Security == v1alpha1.SOAPSecurityNone {
		return nil
	}
	return fmt.Errorf("has content Envelope, which is sent as it is, and its Connector has security %s: write `content: Element`, or take a Connector without security", s.Security)
}

func soapService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.SOAP == nil {
		return nil
	}
	options := c.Spec.Service.SOAP
	return &System{
		Name: "soap", Role: RoleService, Options: options, Endpoint: options.URL, Ports: urlPorts(options.URL),
		check: func(path *field.Path) field.ErrorList {
			errs := checkOpenAPI(c.Spec.Service)
			if call := options.Call; call != nil {
				at := path.Child("call")
				errs = append(append(errs, CheckTemplate(at.Child("action"), call.Action)...), checkSOAPNames(&call.SOAPNames, at)...)
			}
			return errs
		},
	}
}

func soapOperation(o *v1alpha1.Operation) *Operation {
	if o.SOAP == nil {
		return nil
	}
	return &Operation{Name: "soap", Options: o.SOAP, check: func(path *field.Path) field.ErrorList { return checkSOAPCall(o.SOAP, path) }}
}

func checkSOAPCall(c *v1alpha1.SOAPCall, path *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	return append(CheckTemplate(path.Child("action"), c.Action), checkSOAPNames(&c.SOAPNames, path)...)
}
