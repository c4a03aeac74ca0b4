package systems

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

// Answers tells whether a source's requests are answered by services.
func Answers(c *v1alpha1.Connector) bool {
	s := c.Spec.Source
	return s != nil && (s.HTTP != nil && s.HTTP.Exchange == v1alpha1.ExchangeRequestReply || s.SOAP != nil && s.SOAP.Exchange == v1alpha1.ExchangeRequestReply)
}

func httpService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.HTTP == nil {
		return nil
	}
	options := c.Spec.Service.HTTP
	return &System{
		Name: "http", Role: RoleService, Options: options, Endpoint: options.URL, Ports: urlPorts(options.URL),
		check: func(*field.Path) field.ErrorList { return checkOpenAPI(c.Spec.Service) },
	}
}

func stubService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.Stub == nil {
		return nil
	}
	options := c.Spec.Service.Stub
	endpoint := "1 example"
	if n := len(options.Examples); n != 1 {
		endpoint = fmt.Sprintf("%d examples", n)
	}
	return &System{
		Name: "stub", Role: RoleService, Options: options, Endpoint: endpoint,
		check: func(path *field.Path) field.ErrorList {
			return append(checkExamples(options.Examples, path.Child("examples")), checkOpenAPI(c.Spec.Service)...)
		},
	}
}

func checkExamples(list []v1alpha1.StubExample, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		e, at := &list[i], path.Index(i)
		errs = append(errs, CheckFilter(at.Child("when"), e.When)...)
		for _, name := range sortedKeys(e.Headers) {
			errs = append(errs, CheckTemplate(at.Child("headers").Key(name), e.Headers[name])...)
		}
		if e.JQ == "" {
			continue
		}
		if _, err := steps.CompileTransform(e.JQ); err != nil {
			errs = append(errs, Invalid(at.Child("jq"), e.JQ, err))
		}
	}
	return errs
}
