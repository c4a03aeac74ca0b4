package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/metip/metip/connectors/contract"
)

// maxConfigSize is what fits a ConfigMap.
const maxConfigSize = 1 << 20

// LoadConfig reads and checks a pod's configuration.
func LoadConfig(path string) (*contract.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the configuration: %w", err)
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// ParseConfig decodes and checks a configuration.
func ParseConfig(raw []byte) (*contract.Config, error) {
	if len(raw) > maxConfigSize {
		return nil, fmt.Errorf("it is larger than %d bytes", maxConfigSize)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if version.Version != contract.ConfigVersion {
		return nil, fmt.Errorf("it has version %d, and this program reads version %d: the operator and the connector image are of different releases", version.Version, contract.ConfigVersion)
	}
	c := &contract.Config{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, err
	}
	return c, checkConfig(c)
}

func checkConfig(c *contract.Config) error {
	var errs []error
	need := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	roles := 0
	for _, has := range []bool{c.Source != nil, c.Sink != nil, c.Service != nil} {
		if has {
			roles++
		}
	}
	need(roles == 1, "set exactly one of source, sink and service")
	for name, v := range map[string]string{
		"connector.namespace": c.Connector.Namespace, "connector.name": c.Connector.Name, "connector.integration": c.Connector.Integration,
		"connector.uid": c.Connector.UID,
	} {
		need(subjectToken(v), "%s is missing or holds what a subject cannot: %q", name, v)
	}
	need(len(c.Broker.URLs) > 0, "broker.urls is empty")
	if c.Source != nil {
		need(c.Source.System.Type != "", "source.system.type is empty")
		need(c.Source.EventType != "", "source.eventType is empty")
		for i, k := range c.Source.Calls {
			need(k.Route != "" && subjectToken(k.Integration) && subjectToken(k.Service), "source.calls[%d] lacks route, integration or service", i)
			need(k.Timeout > 0, "source.calls[%d].timeout must be more than 0", i)
		}
	}
	if c.Service != nil {
		need(c.Service.System.Type != "", "service.system.type is empty")
		need(c.Service.MaxConcurrent > 0, "service.maxConcurrent must be more than 0")
		need(c.Service.Timeout > 0, "service.timeout must be more than 0")
	}
	if c.Sink != nil {
		need(c.Sink.System.Type != "", "sink.system.type is empty")
		for i, r := range c.Sink.Routes {
			need(r.Name != "" && r.Destination != "" && r.Stream != "" && r.Durable != "" && r.Integration != "", "sink.routes[%d] lacks name, destination, integration, stream or durable", i)
			need(r.Delivery.Timeout > 0, "sink.routes[%d].delivery.timeout must be more than 0", i)
		}
	}
	return errors.Join(errs...)
}

// subjectToken tells whether a name can be one part of a subject.
func subjectToken(s string) bool { return s != "" && !strings.ContainsAny(s, " .*>\t\r\n") }
