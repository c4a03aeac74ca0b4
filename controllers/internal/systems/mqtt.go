package systems

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func mqttSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.MQTT == nil {
		return nil
	}
	options := c.Spec.Source.MQTT
	return &System{
		Name: "mqtt", Role: RoleSource, Options: options, Endpoint: options.Connection.Servers[0] + " " + options.Topics[0], Ports: mqttPorts(&options.Connection),
		check: func(path *field.Path) field.ErrorList {
			for _, filter := range options.Topics {
				if options.DeadLetter != "" && leads(filter, options.DeadLetter) {
					return field.ErrorList{field.Invalid(path.Child("deadLetter"), options.DeadLetter, fmt.Sprintf("it is among the topics that are read, by %q: name one that is not", filter))}
				}
			}
			return nil
		},
	}
}

// leads tells whether a filter of topics leads to a topic.
func leads(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") != strings.HasPrefix(filter, "$") {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t) || level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

func mqttSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.MQTT == nil {
		return nil
	}
	options := c.Spec.Sink.MQTT
	return &System{
		Name: "mqtt", Role: RoleSink, Options: options, Endpoint: options.Connection.Servers[0] + " " + string(options.Publish.Topic), Ports: mqttPorts(&options.Connection),
		check: func(path *field.Path) field.ErrorList { return checkMQTT(&options.Publish, path.Child("publish")) },
		fits: func(operation any) error {
			o, ok := operation.(*v1alpha1.MQTTPublish)
			if ok && options.Connection.Version == "3.1.1" && (len(o.Properties) > 0 || o.Expiration != nil) {
				return errors.New(`the Connector speaks MQTT 3.1.1, which has no properties and no expiration: leave them out, or set version: "5" there`)
			}
			return nil
		},
	}
}

func mqttOperation(o *v1alpha1.Operation) *Operation {
	if o.MQTT == nil {
		return nil
	}
	return &Operation{Name: "mqtt", Options: o.MQTT, check: func(path *field.Path) field.ErrorList { return checkMQTT(o.MQTT, path) }}
}

func checkMQTT(p *v1alpha1.MQTTPublish, path *field.Path) field.ErrorList {
	errs := CheckTemplate(path.Child("topic"), p.Topic)
	for _, name := range sortedKeys(p.Properties) {
		errs = append(errs, CheckTemplate(path.Child("properties").Key(name), p.Properties[name])...)
	}
	return errs
}

func mqttPorts(c *v1alpha1.MQTTConnection) []int32 {
	var ports []int32
	for _, server := range c.Servers {
		port := int32(8883)
		if u, err := url.Parse(server); err == nil {
			if u.Scheme == "mqtt" {
				port = 1883
			}
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
