// Package enginetest runs an embedded NATS server as a Broker runs it for connectors: operator mode, with the streams in account BUS,
// the connectors in account EDGE, and for each connector a user that may do no more than contract's permissions say. Tests of the engine
// and of the systems use it; the operator's own broker lives in controllers/internal/bus.
package enginetest
