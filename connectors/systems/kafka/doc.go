// Package kafka joins clusters that speak Kafka's protocol: a source that is a member of a consumer group, and a sink that is an idempotent producer. What both
// promise is in docs/connectors/kafka.md.
package kafka
