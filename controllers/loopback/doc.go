// Package loopback configures broker servers on this machine exactly as the operator configures a managed Broker, and prepares them
// through the operator's own session, without Kubernetes. test/bench and test/chaos use it to have the data plane by itself; they may not import
// internal packages, hence this door to them. Nothing of the operator imports it.
package loopback
