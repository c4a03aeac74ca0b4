package contract

import (
	"crypto/sha256"
	"encoding/hex"
)

// The state of steps that look at several messages (deduplicate, aggregate, resequence) is a document for each key, in a stream of the
// Integration. Each is written with the sequence of the one before it, so that two pods never undo each other's work, and only the relay may write.
// The positions of sources are there too (position.go).

// Deduplicate lets the first message of a key pass, and no other within Window.
type Deduplicate struct {
	// Key is a CEL expression.
	Key    string   `json:"key"`
	Window Duration `json:"window"`
}

// Aggregate makes one message of several with the same key. At least one of Count, When and Timeout is set.
type Aggregate struct {
	// Key is a CEL expression.
	Key string `json:"key"`
	// Count of members that complete a group.
	Count int32 `json:"count,omitempty"`
	// When is a CEL expression that is true for the last of a group.
	When string `json:"when,omitempty"`
	// Timeout after a group's first member.
	Timeout Duration `json:"timeout,omitempty"`
}

// Resequence puts messages with the same key into the order of their numbers.
type Resequence struct {
	// Key is a CEL expression; empty means that all messages are one sequence.
	Key string `json:"key,omitempty"`
	// Number is a CEL expression that yields an integer.
	Number string `json:"number"`
	// Start is the number of the first message of each key.
	Start int64 `json:"start"`
	// Timeout is how long a number that is missing is waited for.
	Timeout Duration `json:"timeout"`
}

// Limits of a group that is being aggregated, or of messages that wait for their turn: what reaches one is completed at once.
const (
	MaxMembers     = 1000
	MaxMemberBytes = 2 << 20
)

// ExtensionCompletion of the message that an aggregate makes says why its group was complete; ExtensionSize how many members it has.
const (
	ExtensionCompletion = "aggregatecompletion"
	ExtensionSize       = "aggregatesize"
)

// Why a group was complete.
const (
	CompletionCount   = "Count"
	CompletionWhen    = "When"
	CompletionTimeout = "Timeout"
	CompletionFull    = "Full"
	// CompletionRemoved: the step was removed from the Route.
	CompletionRemoved = "Removed"
)

// StateStream of an Integration.
func StateStream(namespace, integration string) string {
	return namespace + "_" + integration + "_state"
}

// StateSubjects are what StateStream stores.
func StateSubjects(namespace, integration string) string {
	return "state." + namespace + "." + integration + ".>"
}

// StatePrefix begins the subjects of a destination's documents. It holds the Route's UID: another Route of its name begins anew.
func StatePrefix(namespace, integration, routeUID, destination string) string {
	return "state." + namespace + "." + integration + "." + routeUID + "." + destination + "."
}

// StateToken of a key, for a subject.
func StateToken(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

// Stateful is the step of a destination that keeps state, which is the last one; nil where there is none.
func (r *Route) Stateful() *Step {
	if n := len(r.Steps); n > 0 {
		if s := &r.Steps[n-1]; s.Deduplicate != nil || s.Aggregate != nil || s.Resequence != nil {
			return s
		}
	}
	return nil
}
