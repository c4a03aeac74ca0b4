// Package steps compiles and runs what a Route says about a message: CEL expressions (filters, values), templates and jq programs.
// The data plane runs them; the webhook and the controllers compile with the same code, so that what is accepted runs.
package steps
