package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// GeneratorSource makes messages by itself, at a rate: for trying out what is behind it, and for counting. Message n is the same whenever it is made.
type GeneratorSource struct {
	// rate in messages a second, by default 1, at most 50000. What the bus did not take in time is not made up for.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=50000
	Rate *int32 `json:"rate,omitempty"`
	// count of messages, after which no more are made, for example 10000; raised later, it goes on. Left out, there is no end.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000000
	Count *int64 `json:"count,omitempty"`
	// size of each body, by default 1Ki and at most 1Mi. A body is `{"number": n, "filler": "..."}`, unless source.schema says what it is: then each is
	// an example of that.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) <= 0 && quantity(string(self)).compareTo(quantity('1')) >= 0",message="size must be between 1 and 1Mi, for example 4Ki"
	Size *resource.Quantity `json:"size,omitempty"`
}

// LogPrint is what is printed of a message.
// +kubebuilder:validation:Enum=Attributes;Body;Nothing
type LogPrint string

// LogSink writes a line for each message to the pod's log, and lets go of it.
type LogSink struct {
	// print says what is in a line: Attributes (the default: id, type, source, subject, time, size and headers), Body (and the first 4096 bytes of the body:
	// whoever may read the pod's log reads them) or Nothing (no line; messages are counted in the metrics and dropped).
	// +optional
	// +default="Attributes"
	Print LogPrint `json:"print,omitempty"`
}
