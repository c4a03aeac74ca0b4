package systems

import (
	"net"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// customOptions are a member of the API, and where engine and container find each other in a pod. What the operator alone needs is in it as well: a
// change of it rolls the pods.
type customOptions struct {
	*v1alpha1.CustomContainer `json:",inline"`
	Request                   *v1alpha1.CustomRequest `json:"request,omitempty"`
	Bus                       string                  `json:"bus,omitempty"`
	Container                 string                  `json:"container"`
}

var (
	customBus       = net.JoinHostPort("127.0.0.1", strconv.Itoa(contract.PortCustomBus))
	customContainer = net.JoinHostPort("127.0.0.1", strconv.Itoa(contract.PortCustomContainer))
)

// Container of the user's own that runs in a Connector's pods; nil for none.
func Container(c *v1alpha1.Connector) *v1alpha1.CustomContainer {
	switch {
	case c.Spec.Source != nil && c.Spec.Source.Custom != nil:
		return &c.Spec.Source.Custom.CustomContainer
	case c.Spec.Sink != nil && c.Spec.Sink.Custom != nil:
		return &c.Spec.Sink.Custom.CustomContainer
	case c.Spec.Service != nil && c.Spec.Service.Custom != nil:
		return &c.Spec.Service.Custom.CustomContainer
	default:
		return nil
	}
}

func customSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.Custom == nil {
		return nil
	}
	o := &c.Spec.Source.Custom.CustomContainer
	return &System{Name: "custom", Role: RoleSource, Endpoint: o.Image, Ports: o.Ports, Options: customOptions{CustomContainer: o, Bus: customBus, Container: customContainer}}
}

func customSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.Custom == nil {
		return nil
	}
	o := c.Spec.Sink.Custom
	return &System{
		Name: "custom", Role: RoleSink, Endpoint: o.Image, Ports: o.Ports,
		Options: customOptions{CustomContainer: &o.CustomContainer, Request: o.Request, Container: customContainer},
		check:   func(path *field.Path) field.ErrorList { return checkCustom(o.Request, path.Child("request")) },
	}
}

func customService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.Custom == nil {
		return nil
	}
	o := &c.Spec.Service.Custom.CustomContainer
	return &System{
		Name: "custom", Role: RoleService, Endpoint: o.Image, Ports: o.Ports, Options: customOptions{CustomContainer: o, Container: customContainer},
		check: func(*field.Path) field.ErrorList { return checkOpenAPI(c.Spec.Service) },
	}
}

func customOperation(o *v1alpha1.Operation) *Operation {
	if o.Custom == nil {
		return nil
	}
	return &Operation{Name: "custom", Options: o.Custom, check: func(path *field.Path) field.ErrorList { return checkCustom(o.Custom, path) }}
}

func checkCustom(r *v1alpha1.CustomRequest, path *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	errs := CheckTemplate(path.Child("path"), r.Path)
	for _, name := range sortedKeys(r.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), r.Headers[name])...)
	}
	return errs
}
