package v1alpha1

// Step is exactly one mediation.
// +kubebuilder:validation:XValidation:rule="[has(self.filter),has(self.transform),has(self.delay),has(self.throttle)].filter(x, x).size() == 1",message="set exactly one of filter, transform, delay and throttle, for example `- transform: {jq: '{id: .arrestId}'}`"
type Step struct {
	// name of the step, for errors and traces; left out, it is the step's number.
	// +optional
	Name ObjectName `json:"name,omitempty"`
	// filter is a CEL expression that yields a boolean; messages for which it is false are not delivered.
	// +optional
	Filter Expression `json:"filter,omitempty"`
	// transform makes a new body.
	// +optional
	Transform *Transform `json:"transform,omitempty"`
	// delay holds the message back until a time. The steps before it are run again then.
	// +optional
	Delay *Delay `json:"delay,omitempty"`
	// throttle bounds how often each destination is delivered to, each by itself. It counts what reaches the system, wherever it stands among
	// the steps.
	// +optional
	Throttle *Throttle `json:"throttle,omitempty"`
}

// Transform makes a new body of the message's body.
type Transform struct {
	// jq program (https://jqlang.org/manual) that is given the JSON body and whose one result is the new body. `$message` holds id,
	// type, source, subject, time and headers. A program without result filters the message out; more than one result is an error.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	JQ string `json:"jq"`
}
