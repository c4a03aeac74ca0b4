package systems

import (
	"net/url"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func natsSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.NATS == nil {
		return nil
	}
	options := c.Spec.Source.NATS
	return &System{Name: "nats", Role: RoleSource, Options: options, Endpoint: options.Servers[0] + " " + string(options.Stream), Ports: natsPorts(&options.NATSConnection)}
}

func natsSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.NATS == nil {
		return nil
	}
	options := c.Spec.Sink.NATS
	return &System{
		Name: "nats", Role: RoleSink, Options: options, Endpoint: options.Servers[0] + " " + string(options.Publish.Subject), Ports: natsPorts(&options.NATSConnection),
		check: func(path *field.Path) field.ErrorList {
			return checkNATSPublish(&options.Publish, path.Child("publish"))
		},
	}
}

func natsOperation(o *v1alpha1.Operation) *Operation {
	if o.NATS == nil {
		return nil
	}
	return &Operation{Name: "nats", Options: o.NATS, check: func(path *field.Path) field.ErrorList { return checkNATSPublish(o.NATS, path) }}
}

func checkNATSPublish(p *v1alpha1.NATSPublish, path *field.Path) field.ErrorList {
	errs := CheckTemplate(path.Child("subject"), p.Subject)
	for _, name := range sortedKeys(p.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), p.Headers[name])...)
	}
	return errs
}

func natsService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.NATS == nil {
		return nil
	}
	options := c.Spec.Service.NATS
	return &System{
		Name: "nats", Role: RoleService, Options: options, Endpoint: options.Servers[0] + " " + string(options.Subject), Ports: natsPorts(&options.NATSConnection),
		check: func(path *field.Path) field.ErrorList {
			return append(CheckTemplate(path.Child("subject"), options.Subject), checkOpenAPI(c.Spec.Service)...)
		},
	}
}

func natsPorts(c *v1alpha1.NATSConnection) []int32 {
	var ports []int32
	for _, server := range c.Servers {
		port := int32(4222)
		if u, err := url.Parse(server); err == nil {
			if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
				port = int32(n)
			}
		}
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}
