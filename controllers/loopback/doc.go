// Package loopback configures one broker server on this machine exactly as the operator configures a managed Broker, and prepares it
// through the operator's own session, without Kubernetes. test/bench uses it to measure the data plane by itself; it may not import
// internal packages, hence this door to them. Nothing of the operator imports it.
package loopback
