// Package stub is the system "stub": a service that answers from declared examples, for a flow that is tested before its back end exists
// or while it is being moved. It talks to nobody. What it promises is in docs/connectors/stub.md.
package stub
