// Package contract is what the operator and the connector pods agree on, and the only package that both import: the
// names of streams, durable consumers and subjects, the envelope of a message, where files are mounted and which ports are open, the
// configuration that a pod reads and the report that it gives.
//
// It holds data and pure functions only. Permissions of a broker user derive from the same names (Permissions).
package contract
