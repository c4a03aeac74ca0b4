package contract

// Step is one mediation: exactly one member besides Name. The members are the API's, compiled: references are resolved, so that a pod
// needs nothing but this.
type Step struct {
	// Name for errors: the field, as `filter`, `steps[2]`, `to[db].filter`, and the step's name if it has one.
	Name string `json:"name"`
	// Filter is a CEL expression that yields a boolean.
	Filter string `json:"filter,omitempty"`
	// JQ program of a transform.
	JQ string `json:"jq,omitempty"`
	// CEL expression of a transform, whose value is the new body.
	CEL string `json:"cel,omitempty"`
	// SetHeaders gives templates by the name of a CloudEvents extension, or `subject`; an empty value removes it.
	SetHeaders map[string]string `json:"setHeaders,omitempty"`
	// Redact drops or masks fields.
	Redact *Redact `json:"redact,omitempty"`
	// RecipientList lets the message pass for the destinations that it is for.
	RecipientList *RecipientList `json:"recipientList,omitempty"`
	// LoadBalance lets the message pass for one of several destinations.
	LoadBalance *LoadBalance `json:"loadBalance,omitempty"`
	// Validate refuses bodies that do not follow a schema.
	Validate *Validate `json:"validate,omitempty"`
	// Convert turns the body into another format.
	Convert *Convert `json:"convert,omitempty"`
	// Split makes several deliveries of one message; the steps after it run on each. A Route has one at most.
	Split *Split `json:"split,omitempty"`
	// Enrich adds to the body what a service answers, or what a table holds.
	Enrich *Enrich `json:"enrich,omitempty"`
	// Delay holds the message back until a time.
	Delay *Delay `json:"delay,omitempty"`
	// Throttle spaces what reaches the system; wherever it stands among the steps.
	Throttle *Throttle `json:"throttle,omitempty"`
	// Deduplicate, Aggregate and Resequence keep state: they run in the relay, as the last step of a destination that is an event.
	Deduplicate *Deduplicate `json:"deduplicate,omitempty"`
	Aggregate   *Aggregate   `json:"aggregate,omitempty"`
	Resequence  *Resequence  `json:"resequence,omitempty"`
}
