// Package integration reconciles Integrations: which Broker they use and may use, their streams there, the removal of durable consumers that
// belong to no Route any more, and the summary of everything that names them. Integrations alone have a finalizer: their data is deleted, or
// knowingly left behind, before they go.
package integration
