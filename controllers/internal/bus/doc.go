// Package bus is the operator's side of a broker: a session in account BUS for each Broker, the streams of Integrations, the durable
// consumers of Routes, the users of Connectors, the reports of pods, and the trimming of delivered history.
// It knows NATS and connectors/contract, and nothing of Kubernetes' controllers.
package bus
