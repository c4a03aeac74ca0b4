package catalog

import (
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/http"
	"github.com/metip/metip/connectors/systems/nats"
	"github.com/metip/metip/connectors/systems/postgres"
	"github.com/metip/metip/connectors/systems/schedule"
	"github.com/metip/metip/connectors/systems/stub"
)

// Systems that connectors can join, sorted by name.
func Systems() []sdk.System {
	return []sdk.System{
		{Name: "http", Source: http.NewSource, Sink: http.NewSink, Service: http.NewService},
		{Name: "nats", Service: nats.NewService},
		{Name: "postgres", Sink: postgres.NewSink},
		{Name: "schedule", Source: schedule.NewSource},
		{Name: "stub", Service: stub.NewService},
	}
}

// Lookup a system by its name, the union member's in the API.
func Lookup(name string) (sdk.System, bool) {
	for _, s := range Systems() {
		if s.Name == name {
			return s, true
		}
	}
	return sdk.System{}, false
}
