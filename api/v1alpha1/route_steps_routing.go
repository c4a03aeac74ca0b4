package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WireTap copies messages to a destination.
type WireTap struct {
	// to is the name of the destination that gets the copies; it is one of the Route's, and tapped once.
	// +required
	To ObjectName `json:"to"`
}

// RecipientList computes who gets a message.
type RecipientList struct {
	// cel expression that yields a list of names of destinations, for example
	// `data.court.code.startsWith("NMM") ? ["magistrates"] : ["crown", "press"]`. An empty list means that nobody gets the message. A name that
	// is none of the Route's destinations is an error of the message: it goes to the dead letters of every destination.
	// +required
	CEL Expression `json:"cel"`
}

// LoadBalance spreads messages over destinations.
type LoadBalance struct {
	// key is a CEL expression that yields a text, number or boolean: messages with the same key go to the same destination. Left out, each
	// message is placed by its source and id. It cannot change.
	// +optional
	Key Expression `json:"key,omitempty"`
	// weights of destinations, by their names, 0 to 1000: each message goes to one of them, in proportion. Destinations that neither
	// weights nor changes name get every message. Weights cannot be edited in place, for a message could go to nobody while pods
	// restart: changes gives them new values.
	// +required
	Weights Weights `json:"weights"`
	// changes of the weights, in order of time: messages that were accepted at from or later are spread by the new ones. A change that has
	// begun for all messages that are still on the bus can be made the weights, and left out with those before it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:XValidation:rule="self.map(c, c.from).isSorted() && self.all(c, self.filter(d, d.from == c.from).size() == 1)",message="changes stand in order of time, each from once"
	Changes []WeightChange `json:"changes,omitempty"`
}

// WeightChange gives destinations new weights.
type WeightChange struct {
	// from is when the change begins, at least 10 minutes ahead: by then every pod knows of it.
	// +required
	From metav1.Time `json:"from"`
	// weights of messages that are accepted from then on. A destination of this loadBalance that is not among them gets nothing.
	// +required
	Weights Weights `json:"weights"`
}

// Weights by the names of destinations.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=16
// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 52)",message="weights are given by the names of destinations"
// +kubebuilder:validation:XValidation:rule="self.exists(k, self[k] > 0)",message="one of the weights must be more than 0"
type Weights map[string]Weight

// Weight of a destination.
// +kubebuilder:validation:Minimum=0
// +kubebuilder:validation:Maximum=1000
type Weight int32
