package v1alpha1

// Deduplicate lets the first message of each key pass, and filters the others out. What was seen is remembered by the broker, through every restart.
type Deduplicate struct {
	// key is a CEL expression that yields what makes two messages the same: a text of at most 256 bytes, a number or a boolean, for example
	// data.arrestId.
	// +required
	Key Expression `json:"key"`
	// window for which a key is remembered, counted from its first message, from 1s to 720h (30 days), by default 24h.
	// +optional
	// +default="24h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('720h')",message="window must be between 1s and 720h, for example 168h"
	Window Duration `json:"window,omitempty"`
}

// Aggregate makes one message of several JSON messages that have the same key: an array of their bodies, in the order in which they came. The group is
// complete by count, when or timeout, whichever is first; one that has 1000 members or 2 MiB is complete at once.
// +kubebuilder:validation:XValidation:rule="has(self.count) || has(self.when) || has(self.timeout)",message="say when a group is complete: set count, when or timeout, for example `aggregate: {key: data.orderId, count: 3, timeout: 1h}`"
type Aggregate struct {
	// key is a CEL expression that yields what the members of a group have in common: a text of at most 256 bytes, a number or a boolean, for
	// example data.orderId.
	// +required
	Key Expression `json:"key"`
	// count of members that complete a group, from 1 to 1000.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Count *int32 `json:"count,omitempty"`
	// when is a CEL expression that is true for the last message of a group, for example has(data.final).
	// +optional
	When Expression `json:"when,omitempty"`
	// timeout after the first member, when the group is complete with those that have come, from 1s to 720h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('720h')",message="timeout must be between 1s and 720h, for example 10m"
	Timeout *Duration `json:"timeout,omitempty"`
}

// Resequence puts messages into the order of a number that they carry. What comes too early waits; a message whose turn is over goes to the dead
// letters.
type Resequence struct {
	// key is a CEL expression that yields what the messages of one sequence have in common; left out, all messages are one sequence.
	// +optional
	Key Expression `json:"key,omitempty"`
	// number is a CEL expression that yields the message's place in its sequence, an integer, for example data.sequence.
	// +required
	Number Expression `json:"number"`
	// start is the number of the first message of each key, by default 1.
	// +optional
	// +default=1
	Start *int64 `json:"start,omitempty"`
	// timeout for which a number that is missing is waited for, from 1s to 24h, by default 1m. Then those behind it pass.
	// +optional
	// +default="1m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="timeout must be between 1s and 24h, for example 1m"
	Timeout Duration `json:"timeout,omitempty"`
}
