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
	// Delay holds the message back until a time.
	Delay *Delay `json:"delay,omitempty"`
	// Throttle spaces what reaches the system; wherever it stands among the steps.
	Throttle *Throttle `json:"throttle,omitempty"`
}
