// Package sdk is the contract between the engine and a system: Source, Sink, the Message that crosses, and the errors
// that say what to do with it. A system is one package below connectors/systems that implements these interfaces and knows
// nothing of the broker; the engine owns connecting, back-off, batching, acknowledging, dead letters, health, metrics and drain.
package sdk
