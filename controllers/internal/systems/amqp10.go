package systems

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func amqp10Source(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.AMQP10 == nil {
		return nil
	}
	options := c.Spec.Source.AMQP10
	return &System{
		Name: "amqp10", Role: RoleSource, Options: options, Endpoint: options.Connection.Servers[0] + " " + string(options.Address),
		Ports: serverPorts(options.Connection.Servers, "amqp", 5672, 5671),
	}
}

func amqp10Sink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.AMQP10 == nil {
		return nil
	}
	options := c.Spec.Sink.AMQP10
	return &System{
		Name: "amqp10", Role: RoleSink, Options: options, Endpoint: options.Connection.Servers[0] + " " + string(options.Send.Address),
		Ports: serverPorts(options.Connection.Servers, "amqp", 5672, 5671),
		check: func(path *field.Path) field.ErrorList { return checkAMQP10Send(&options.Send, path.Child("send")) },
	}
}

func amqp10Operation(o *v1alpha1.Operation) *Operation {
	if o.AMQP10 == nil {
		return nil
	}
	return &Operation{Name: "amqp10", Options: o.AMQP10, check: func(path *field.Path) field.ErrorList { return checkAMQP10Send(o.AMQP10, path) }}
}

func checkAMQP10Send(s *v1alpha1.AMQP10Send, path *field.Path) field.ErrorList {
	errs := append(CheckTemplate(path.Child("address"), s.Address), CheckTemplate(path.Child("subject"), s.Subject)...)
	for _, name := range sortedKeys(s.Properties) {
		errs = append(errs, CheckTemplate(path.Child("properties").Key(name), s.Properties[name])...)
	}
	return errs
}
