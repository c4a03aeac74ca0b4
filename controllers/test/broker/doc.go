// Package broker tests the Broker controller on a real API server, with real NATS servers where they are external.
package broker
