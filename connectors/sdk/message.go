package sdk

import "time"

// Message is a CloudEvent on its way over the bus. The engine owns it; a system reads it and keeps no reference after the
// call that gave it has returned.
type Message struct {
	// ID is what the source system calls the message. The engine prefixes it with the connector's UID and Endpoint for
	// de-duplication, so it must be stable across repeats, and unique within the endpoint only.
	ID string
	// Endpoint, table or path within the system that ID is unique in; it may be empty.
	Endpoint string
	// Type of the event. A source leaves it empty for the connector's own.
	Type string
	// Source is the URI of the producer: the connector's own unless the system says otherwise.
	Source string
	// Subject of the event within its source; optional.
	Subject string
	// Time of the event; a source leaves it zero for now.
	Time time.Time
	// ContentType of Data.
	ContentType string
	// PartitionKey keeps messages of one key in one slot; empty means ID.
	PartitionKey string
	// Headers are CloudEvents extensions (lower case, without prefix) and the trace context.
	Headers map[string]string
	// Format of Data: JSON, XML, Text or Binary. The engine sets it; a system leaves it empty.
	Format string
	// Accepted is when the first source accepted the message, as RFC 3339 with nanoseconds; Hops is how often a relay has passed it on. The
	// engine sets both.
	Accepted string
	Hops     int
	// History is where the message has been (contract.AppendHistory), this destination included; empty where nobody asked for it. The engine
	// sets it.
	History string
	// Stored is when the bus stored the message; the engine sets it.
	Stored time.Time
	// Data is the body, byte for byte. Use SetData once Body has been called.
	Data []byte
	// Claim is the body where it is too large for the bus, and Data is empty then; nil for every other message. Only an Operation that is
	// Streaming is given such a message.
	Claim Claim

	body    any
	bodyErr error
	decoded bool
	before  func()
	after   func(size, cost int)
	// peeked counts the calls of Undecoded.
	peeked uint8
}

// BeforeBody is called before Body decodes, until it is set anew; nil is nothing. The engine bounds by it what decoded bodies take.
func (m *Message) BeforeBody(f func()) { m.before = f }

// AfterBody is called after Body has decoded so many bytes, with about how many the value takes.
func (m *Message) AfterBody(f func(size, cost int)) { m.after = f }

// Work says that the body is about to be worked on otherwise than by Body: it calls what BeforeBody has set.
func (m *Message) Work() {
	if m.before != nil {
		m.before()
	}
}

// Delivery is a message for a sink, with what the engine knows of it.
type Delivery struct {
	*Message
	// MessageID is the id that is unique on the bus and the same for every attempt and every replay: idempotence keys derive from it.
	MessageID string
	// Durable names the destination, whatever becomes of its Connector and of its order: ids are unique within it.
	Durable string
	// Sequence is the message's place on the bus, of a replayed one the original's; Part counts what it was split into, from 0.
	Sequence uint64
	Part     int
	// Attempt counts from 1.
	Attempt int
}
