package systems

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func stompSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.STOMP == nil {
		return nil
	}
	options := c.Spec.Source.STOMP
	return &System{
		Name: "stomp", Role: RoleSource, Options: options, Endpoint: options.Connection.Servers[0] + " " + string(options.Destination), Ports: serverPorts(options.Connection.Servers, "stomp", 61613, 61614),
	}
}

func stompSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.STOMP == nil {
		return nil
	}
	options := c.Spec.Sink.STOMP
	return &System{
		Name: "stomp", Role: RoleSink, Options: options, Endpoint: options.Connection.Servers[0] + " " + string(options.Send.Destination), Ports: serverPorts(options.Connection.Servers, "stomp", 61613, 61614),
		check: func(path *field.Path) field.ErrorList { return checkSend(&options.Send, path.Child("send")) },
	}
}

func stompOperation(o *v1alpha1.Operation) *Operation {
	if o.STOMP == nil {
		return nil
	}
	return &Operation{Name: "stomp", Options: o.STOMP, check: func(path *field.Path) field.ErrorList { return checkSend(o.STOMP, path) }}
}

func checkSend(s *v1alpha1.STOMPSend, path *field.Path) field.ErrorList {
	errs := CheckTemplate(path.Child("destination"), s.Destination)
	for _, name := range sortedKeys(s.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), s.Headers[name])...)
	}
	return errs
}
