package catalog

import (
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/amqp10"
	"github.com/metip/metip/connectors/systems/custom"
	"github.com/metip/metip/connectors/systems/files"
	"github.com/metip/metip/connectors/systems/generator"
	"github.com/metip/metip/connectors/systems/http"
	"github.com/metip/metip/connectors/systems/kafka"
	"github.com/metip/metip/connectors/systems/log"
	"github.com/metip/metip/connectors/systems/mail"
	"github.com/metip/metip/connectors/systems/mqtt"
	"github.com/metip/metip/connectors/systems/nats"
	"github.com/metip/metip/connectors/systems/postgres"
	"github.com/metip/metip/connectors/systems/rabbitmq"
	"github.com/metip/metip/connectors/systems/schedule"
	"github.com/metip/metip/connectors/systems/sftp"
	"github.com/metip/metip/connectors/systems/soap"
	"github.com/metip/metip/connectors/systems/stomp"
	"github.com/metip/metip/connectors/systems/stub"
)

// Systems that connectors can join, sorted by name.
func Systems() []sdk.System {
	return []sdk.System{
		{Name: "amqp10", Source: amqp10.NewSource, Sink: amqp10.NewSink},
		{Name: "custom", Source: custom.NewSource, Sink: custom.NewSink, Service: custom.NewService},
		{Name: "files", Source: files.NewSource, Sink: files.NewSink},
		{Name: "generator", Source: generator.NewSource},
		{Name: "http", Source: http.NewSource, Sink: http.NewSink, Service: http.NewService},
		{Name: "httpPoll", Source: http.NewPollSource},
		{Name: "kafka", Source: kafka.NewSource, Sink: kafka.NewSink},
		{Name: "log", Sink: log.NewSink},
		{Name: "mail", Sink: mail.NewSink},
		{Name: "mqtt", Source: mqtt.NewSource, Sink: mqtt.NewSink},
		{Name: "nats", Source: nats.NewSource, Sink: nats.NewSink, Service: nats.NewService},
		{Name: "postgres", Source: postgres.NewSource, Sink: postgres.NewSink, Service: postgres.NewService},
		{Name: "rabbitmq", Source: rabbitmq.NewSource, Sink: rabbitmq.NewSink, Service: rabbitmq.NewService},
		{Name: "schedule", Source: schedule.NewSource},
		{Name: "sftp", Source: sftp.NewSource, Sink: sftp.NewSink},
		{Name: "soap", Source: soap.NewSource, Sink: soap.NewSink, Service: soap.NewService},
		{Name: "stomp", Source: stomp.NewSource, Sink: stomp.NewSink},
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
