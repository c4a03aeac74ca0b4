package contract

import "time"

// MaxWeight of a destination.
const MaxWeight = 1000

// Redact drops or masks fields of a JSON body.
type Redact struct {
	Paths []string `json:"paths"`
	// Mask takes the place of each value; nil drops the field.
	Mask *string `json:"mask,omitempty"`
}

// RecipientList lets a message pass for the destinations that an expression names.
type RecipientList struct {
	// CEL expression that yields a list of names.
	CEL string `json:"cel"`
	// Destination that the step is compiled for, and those that the list may name.
	Destination  string   `json:"destination"`
	Destinations []string `json:"destinations"`
}

// LoadBalance lets each message pass for exactly one of the destinations that have a weight.
type LoadBalance struct {
	// Destination that the step is compiled for; one without a weight gets nothing.
	Destination string `json:"destination"`
	// Key is a CEL expression: messages of one key go to the same destination. The empty one means the message's source and id.
	Key string `json:"key,omitempty"`
	// Weights by destination, for messages that were accepted before the first of the Changes.
	Weights map[string]int32 `json:"weights"`
	// Changes of the weights, in order of time.
	Changes []WeightChange `json:"changes,omitempty"`
}

// WeightChange gives the weights of messages that were accepted at a time or after it.
type WeightChange struct {
	From    time.Time        `json:"from"`
	Weights map[string]int32 `json:"weights"`
}
