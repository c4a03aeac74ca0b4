package systems

import (
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func rabbitMQSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.RabbitMQ == nil {
		return nil
	}
	options := c.Spec.Source.RabbitMQ
	return &System{
		Name: "rabbitmq", Role: RoleSource, Options: options, Endpoint: rabbitMQEndpoint(&options.Connection, options.Queue), Ports: serverPorts(options.Connection.Servers, "amqp", 5672, 5671),
		check: func(path *field.Path) field.ErrorList {
			if d := options.DeadLetter; d != nil && d.Exchange == "" && d.RoutingKey == options.Queue {
				return field.ErrorList{field.Invalid(path.Child("deadLetter", "routingKey"), d.RoutingKey, "it is the queue that is read: name another one")}
			}
			return nil
		},
	}
}

func rabbitMQSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.RabbitMQ == nil {
		return nil
	}
	options := c.Spec.Sink.RabbitMQ
	return &System{
		Name: "rabbitmq", Role: RoleSink, Options: options, Endpoint: rabbitMQEndpoint(&options.Connection, options.Publish.Exchange), Ports: serverPorts(options.Connection.Servers, "amqp", 5672, 5671),
		check: func(path *field.Path) field.ErrorList { return checkPublish(&options.Publish, path.Child("publish")) },
	}
}

func rabbitMQService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.RabbitMQ == nil {
		return nil
	}
	options := c.Spec.Service.RabbitMQ
	return &System{
		Name: "rabbitmq", Role: RoleService, Options: options, Endpoint: rabbitMQEndpoint(&options.Connection, options.Exchange), Ports: serverPorts(options.Connection.Servers, "amqp", 5672, 5671),
		check: func(path *field.Path) field.ErrorList {
			return append(CheckTemplate(path.Child("routingKey"), options.RoutingKey), checkOpenAPI(c.Spec.Service)...)
		},
	}
}

func rabbitMQOperation(o *v1alpha1.Operation) *Operation {
	if o.RabbitMQ == nil {
		return nil
	}
	return &Operation{Name: "rabbitmq", Options: o.RabbitMQ, check: func(path *field.Path) field.ErrorList { return checkPublish(o.RabbitMQ, path) }}
}

func checkPublish(p *v1alpha1.RabbitMQPublish, path *field.Path) field.ErrorList {
	errs := CheckTemplate(path.Child("routingKey"), p.RoutingKey)
	for _, name := range sortedKeys(p.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), p.Headers[name])...)
	}
	return errs
}

// rabbitMQEndpoint is the first server with its virtual host, and what is read or published to there.
func rabbitMQEndpoint(c *v1alpha1.RabbitMQConnection, object string) string {
	host := c.VirtualHost
	if host == "" {
		host = "/"
	}
	return strings.TrimSpace(c.Servers[0] + "/" + url.PathEscape(host) + " " + object)
}
