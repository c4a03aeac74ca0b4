package v1alpha1

// Redact drops or masks fields.
type Redact struct {
	// paths of the fields, from the body's root: names with dots between them; `[*]` for every element of an array, `*` for every member of an
	// object, `..name` for the members of that name wherever below, `['a name']` for a name with other characters. For example
	// `person.dateOfBirth`, `victims[*].address`, `..nationalId`. A field that is not there is no error.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Paths []string `json:"paths"`
	// mask is text that takes the place of each value, at most 64 bytes; left out, the field is dropped.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Mask *string `json:"mask,omitempty"`
}
