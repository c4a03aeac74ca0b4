package rabbitmq

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestOptionsAreRefused(t *testing.T) {
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON}}
	rt := fakes.Runtime(t, config, &fakes.Secrets{}, nil)
	makers := map[string]func(json.RawMessage) error{
		"source": func(raw json.RawMessage) error { _, err := NewSource(rt, raw); return err },
		"sink": func(raw json.RawMessage) error {
			s, err := NewSink(rt, raw)
			if err == nil {
				_, err = s.Operation(nil)
			}
			return err
		},
		"service": func(raw json.RawMessage) error { _, err := NewService(rt, raw); return err },
	}
	const at = `"connection":{"servers":["amqps://a"]}`
	for _, c := range []struct{ role, options, want string }{
		{"source", `{` + at + `,"queue":"q"}`, ""},
		{"source", `{` + at + `,"queue":"q","deadLetter":{"exchange":"x"},"identity":"Content","prefetch":4096}`, ""},
		{"source", `{"connection":{"servers":["amqp://[::1]:5672"],"virtualHost":"v","heartbeat":"1m"},"queue":"q"}`, ""},
		{"source", `{` + at + `}`, "queue is missing"},
		{"source", `{` + at + `,"queue":"q","prefetch":5000}`, "prefetch must be"},
		{"source", `{` + at + `,"queue":"q","identity":"x"}`, "identity"},
		{"source", `{` + at + `,"queue":"q","deadLetter":{}}`, "set exchange, routingKey"},
		{"source", `{` + at + `,"queue":"q","deadLetter":{"routingKey":"q"}}`, "is the queue that is read"},
		{"source", `{` + at + `,"queue":"q","else":1}`, "unknown field"},
		{"source", `{"connection":{"servers":[]},"queue":"q"}`, "1 to 16 servers"},
		{"source", `{"connection":{"servers":["amqps://u:p@a"]},"queue":"q"}`, "must be amqps://host:port"},
		{"source", `{"connection":{"servers":["amqps://a","amqp://b"]},"queue":"q"}`, "all amqps:// or all"},
		{"source", `{"connection":{"servers":["amqps://a"],"heartbeat":"10ms"},"queue":"q"}`, "heartbeat must be"},
		{"sink", `{` + at + `,"publish":{"routingKey":"q.{data.a}","headers":{"h":"{id}"},"priority":9,"expiration":"1h"}}`, ""},
		{"sink", `{` + at + `}`, "publish is missing"},
		{"sink", `{` + at + `,"publish":{}}`, "set exchange, routingKey"},
		{"sink", `{` + at + `,"publish":{"exchange":"e","routingKey":"{data."}}`, "routingKey"},
		{"sink", `{` + at + `,"publish":{"exchange":"e","headers":{"h":"{"}}}`, "header h"},
		{"sink", `{` + at + `,"publish":{"exchange":"e","headers":{"cloudEvents:id":"x"}}}`, "set by the connector"},
		{"sink", `{` + at + `,"publish":{"exchange":"e","headers":{"BCC":"x"}}}`, "copies elsewhere"},
		{"sink", `{` + at + `,"publish":{"exchange":"e","unroutable":"x"}}`, "unroutable"},
		{"sink", `{` + at + `,"publish":{"exchange":"e","priority":256}}`, "priority"},
		{"service", `{` + at + `,"routingKey":"q"}`, ""},
		{"service", `{` + at + `}`, "set exchange, routingKey"},
		{"service", `{` + at + `,"routingKey":"{x"}`, "routingKey"},
	} {
		err := makers[c.role](json.RawMessage(c.options))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s: %v, want %q", c.role, c.options, err, c.want)
		}
	}
	config.Auth.Kind = contract.AuthBearer
	for role, options := range map[string]string{"source": `{` + at + `,"queue":"q"}`, "sink": `{` + at + `,"publish":{"exchange":"e"}}`, "service": `{` + at + `,"routingKey":"q"}`} {
		if err := makers[role](json.RawMessage(options)); err == nil || !strings.Contains(err.Error(), "basic") {
			t.Errorf("%s: %v", role, err)
		}
	}
}
