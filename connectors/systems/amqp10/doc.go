// Package amqp10 joins message brokers that speak AMQP 1.0: Artemis, Azure Service Bus, IBM MQ, Qpid, and RabbitMQ with its plugin. A source
// receives from an address and settles each message by itself; a sink sends unsettled, and waits for the outcome of each.
//
// Messages are in receive.go and send.go, connections in connection.go; frames.go refuses frames that were not agreed on.
package amqp10
