package systems

import (
	"net"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func kafkaSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.Kafka == nil {
		return nil
	}
	options := c.Spec.Source.Kafka
	return &System{Name: "kafka", Role: RoleSource, Options: options, Endpoint: kafkaEndpoint(&options.Connection, string(options.Topics[0])), Ports: kafkaPorts(&options.Connection)}
}

func kafkaSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.Kafka == nil {
		return nil
	}
	options := c.Spec.Sink.Kafka
	return &System{
		Name: "kafka", Role: RoleSink, Options: options, Endpoint: kafkaEndpoint(&options.Connection, string(options.Produce.Topic)), Ports: kafkaPorts(&options.Connection),
		check: func(path *field.Path) field.ErrorList { return checkProduce(&options.Produce, path.Child("produce")) },
	}
}

func kafkaOperation(o *v1alpha1.Operation) *Operation {
	if o.Kafka == nil {
		return nil
	}
	return &Operation{Name: "kafka", Options: o.Kafka, check: func(path *field.Path) field.ErrorList { return checkProduce(o.Kafka, path) }}
}

func checkProduce(p *v1alpha1.KafkaProduce, path *field.Path) field.ErrorList {
	errs := append(CheckTemplate(path.Child("topic"), p.Topic), CheckTemplate(path.Child("key"), p.Key)...)
	for _, name := range sortedKeys(p.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), p.Headers[name])...)
	}
	return errs
}

func kafkaEndpoint(c *v1alpha1.KafkaConnection, topic string) string {
	return "kafka://" + c.Servers[0] + " " + topic
}

// kafkaPorts are those of the servers that are named. The servers that these name have to have the same.
func kafkaPorts(c *v1alpha1.KafkaConnection) []int32 {
	var ports []int32
	for _, server := range c.Servers {
		port := int32(9092)
		if _, text, err := net.SplitHostPort(server); err == nil {
			if n, err := strconv.ParseUint(text, 10, 16); err == nil {
				port = int32(n)
			}
		}
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}
