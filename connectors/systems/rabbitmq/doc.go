// Package rabbitmq is the system "rabbitmq": a RabbitMQ server, spoken to in AMQP 0.9.1. A source that reads a queue, a sink that publishes
// with confirms, and a service that asks and waits for the reply. What they promise is in docs/connectors/rabbitmq.md.
//
// Messages and their headers are in receive.go and publication.go, connections in connection.go.
package rabbitmq
