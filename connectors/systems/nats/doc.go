// Package nats is the system "nats": a NATS server of somebody else's, not the bus. A service that passes calls on to whatever answers
// requests on a subject there. What it promises is in docs/connectors/nats.md.
package nats
