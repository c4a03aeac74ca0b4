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
	// Delay holds the message back until a time.
	Delay *Delay `json:"delay,omitempty"`
	// Throttle spaces what reaches the system; wherever it stands among the steps.
	Throttle *Throttle `json:"throttle,omitempty"`
}
