// Package bustest runs real NATS servers inside a test: one or three, with TLS, accounts and limits as a managed Broker's, from the
// same rendered configuration. What it returns is what an external Broker's Secret holds, so that controllers can be tested
// against `spec.external`.
package bustest
