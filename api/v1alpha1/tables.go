package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// Table is a lookup table of an Integration: the last entry of each key, in the Broker, like a bucket of keys and values. Routes fill it by a
// destination (`to: [{name: x, table: {name: wards, key: data.code}}]`), and look entries up by the step enrich.
type Table struct {
	// name of the table within the Integration.
	// +required
	Name ObjectName `json:"name"`
	// size of the stored entries at which the table is full: the Routes that fill it wait, and nothing is discarded. At least 1Mi; left out, it is
	// 64Mi. An entry takes its body and about 400 bytes.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0",message="size must be at least 1Mi, for example 256Mi"
	Size *resource.Quantity `json:"size,omitempty"`
	// maxAge of an entry, from 1m to 8760h: one that was not written again for so long is removed. Left out, entries stay.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="maxAge must be between 1m and 8760h, for example 720h"
	MaxAge *Duration `json:"maxAge,omitempty"`
}

// TableDestination is the entry of a lookup table that each message makes. The Integration's relay writes it. Of the messages of one key the last
// on the bus is what stays, also when an older one is delivered after it. A message whose body is empty, or null, removes its key.
type TableDestination struct {
	// name of a table in spec.tables of the Integration.
	// +required
	Name ObjectName `json:"name"`
	// key of the entry, a CEL expression, for example `data.code`: a text of 1 to 256 bytes, a number or a boolean. A message without one goes to
	// the dead letters.
	// +required
	Key Expression `json:"key"`
	// remove is a CEL expression that is true for messages that remove their key, for example `type == "ward.closed"`.
	// +optional
	Remove Expression `json:"remove,omitempty"`
}

// EnrichTable is the entry that is looked up for each message.
type EnrichTable struct {
	// name of a table in spec.tables of the Integration, which the Route's pods may then read, and no other.
	// +required
	Name ObjectName `json:"name"`
	// key of the entry, a CEL expression, for example `data.ward`: a text of 1 to 256 bytes, a number or a boolean.
	// +required
	Key Expression `json:"key"`
}
