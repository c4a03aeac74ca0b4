package systems

import (
	"strconv"

	"github.com/metip/metip/api/v1alpha1"
)

func generatorSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.Generator == nil {
		return nil
	}
	options := c.Spec.Source.Generator
	endpoint := "1 message a second"
	if options.Rate != nil && *options.Rate > 1 {
		endpoint = strconv.Itoa(int(*options.Rate)) + " messages a second"
	}
	if options.Count != nil {
		endpoint += ", up to " + strconv.FormatInt(*options.Count, 10)
	}
	return &System{Name: "generator", Role: RoleSource, Options: options, Endpoint: endpoint}
}

func logSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.Log == nil {
		return nil
	}
	return &System{Name: "log", Role: RoleSink, Options: c.Spec.Sink.Log, Endpoint: "the pods' log"}
}
