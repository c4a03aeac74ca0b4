package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Integration is a team's area of the bus: who answers for it, where its messages are stored and for how long, and
// what its Routes inherit. Connectors and Routes that name no other belong to the Integration called `default`.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=intg,categories=metip
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Owner",type=string,JSONPath=`.spec.owner.team`
// +kubebuilder:printcolumn:name="Connectors",type=string,JSONPath=`.status.connectors`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Broker",type=string,priority=1,JSONPath=`.status.broker`
// +kubebuilder:printcolumn:name="Retention",type=string,priority=1,JSONPath=`.spec.retention.period`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",message="an Integration's name is at most 52 of a-z, 0-9 and '-', begins with a letter and has no dots: it becomes part of subjects",fieldPath=".metadata"
type Integration struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard metadata of an object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec is what is wanted.
	// +optional
	// +default={}
	Spec IntegrationSpec `json:"spec,omitempty,omitzero"`
	// status is what was found.
	// +optional
	// +default={"observedGeneration": -1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}
	Status IntegrationStatus `json:"status,omitempty,omitzero"`
}

// IntegrationList is a list of Integrations.
// +kubebuilder:object:root=true
type IntegrationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Integration `json:"items"`
}

// IntegrationSpec is what is wanted of an Integration.
// +kubebuilder:validation:XValidation:rule="has(self.brokerRef) == has(oldSelf.brokerRef) && (!has(self.brokerRef) || self.brokerRef == oldSelf.brokerRef)",message="an Integration cannot move to another Broker: its messages would stay behind"
type IntegrationSpec struct {
	// brokerRef names the Broker. Left out, it is the Broker called `default` of this namespace or, where there is none, of the
	// operator's namespace. The Broker's allowedNamespaces must let this namespace in. It cannot change.
	// +optional
	BrokerRef *NamespacedRef `json:"brokerRef,omitempty"`
	// owner answers for this Integration.
	// +optional
	Owner *Owner `json:"owner,omitempty"`
	// marking is the protective marking that every message of this Integration carries as its CloudEvents extension `marking`,
	// for example OFFICIAL-SENSITIVE.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([A-Za-z0-9 ._:/-]*[A-Za-z0-9])?$')",message="marking is letters, digits, spaces and . _ : / -, and begins and ends with a letter or digit, for example OFFICIAL-SENSITIVE"
	Marking string `json:"marking,omitempty"`
	// retention of messages: how long delivered ones stay, and how much may be stored.
	// +optional
	Retention *Retention `json:"retention,omitempty"`
	// deduplicationWindow for which the bus remembers message ids, by default 5m, from 1m to 24h: a source that sends a message again within it
	// is acknowledged and nothing is stored twice. The broker holds the ids of the window in memory.
	// +optional
	// +default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('24h')",message="deduplicationWindow must be between 1m and 24h, for example 30m"
	DeduplicationWindow Duration `json:"deduplicationWindow,omitempty"`
	// delivery that Routes inherit: everything but the order, which is a Route's or a destination's.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.order)",message="order is a Route's or a destination's, for it cannot change while they live: write `delivery: {order: PerKey}` there"
	Delivery *Delivery `json:"delivery,omitempty"`
	// tables of keys and values in which Routes look things up, and which Routes fill. A table that is taken off this list is deleted with its
	// entries as soon as no Route names it any more.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=12
	Tables []Table `json:"tables,omitempty"`
	// suspend stops every source of this Integration (listeners answer 503) and pauses every Route; messages wait.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
	// deletionPolicy of the stored messages when the Integration is deleted. Retain (the default) keeps them in the Broker, and an
	// Integration of the same name takes them up again.
	// +optional
	// +default="Retain"
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// Owner is who to call.
type Owner struct {
	// team that owns the data, for example Custody Services.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Team string `json:"team"`
	// contact of the team in the night: a telephone number, an address, a rota.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Contact string `json:"contact,omitempty"`
}

// Retention of messages. What a Route still owes to a destination is kept however old it is.
type Retention struct {
	// period for which delivered messages stay on the bus, so that they can be replayed, at most 8760h. Left out, it is 24h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('8760h')",message="period must be at most 8760h, for example 168h"
	Period *Duration `json:"period,omitempty"`
	// size of the stored messages at which the bus pushes back: sources answer 503 or stop reading, nothing is
	// discarded. At least 8Mi; left out, it is 1Gi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('8Mi')) >= 0",message="size must be at least 8Mi, for example 20Gi"
	Size *resource.Quantity `json:"size,omitempty"`
	// deadLettersSize of the stored dead letters at which Routes wait instead of adding to them. At least 8Mi; left out, it is 128Mi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('8Mi')) >= 0",message="deadLettersSize must be at least 8Mi, for example 1Gi"
	DeadLettersSize *resource.Quantity `json:"deadLettersSize,omitempty"`
	// stateSize of what steps remember (deduplicate, aggregate, resequence), and of the positions of sources whose systems do not remember what was taken
	// in (`postgres: {table}`), at which such Routes and sources wait. It is taken from the first of them on. At least 8Mi; left out, it is 256Mi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('8Mi')) >= 0",message="stateSize must be at least 8Mi, for example 1Gi"
	StateSize *resource.Quantity `json:"stateSize,omitempty"`
	// claimsSize of the stored bodies that are larger than a message may be (claim checks), at which their sources answer 503; other messages
	// go on. It is taken only while a source of this Integration has a `maxBodySize` over 8Mi. At least 512Mi; left out, it is 1Gi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('512Mi')) >= 0",message="claimsSize must be at least 512Mi, for example 10Gi"
	ClaimsSize *resource.Quantity `json:"claimsSize,omitempty"`
}

// IntegrationStatus is what was found.
type IntegrationStatus struct {
	// observedGeneration is the generation that the conditions speak of; -1 means not seen yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions that apply: Accepted, ResolvedRefs, Programmed, StorageHealthy, Suspended and Ready; Reconciling and Stalled while true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// connectors that are ready, of those that name this Integration, as 3/4.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Connectors string `json:"connectors,omitempty"`
	// routes that are ready, of those in this Integration, as 3/4.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Routes string `json:"routes,omitempty"`
	// broker that holds the streams, as namespace/name.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Broker string `json:"broker,omitempty"`
	// relay of the Integration: the pod that does what must be done once for all destinations, as making events and writing tables. It is there only while a
	// Route needs it.
	// +optional
	Relay *RelayStatus `json:"relay,omitempty"`
}

// RelayStatus is what was found of an Integration's relay.
type RelayStatus struct {
	// observedGeneration is the generation of the Integration that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions that apply: as a Connector's, without Accepted.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// attachedRoutes is the number of Routes that the relay serves.
	// +optional
	AttachedRoutes *int32 `json:"attachedRoutes,omitempty"`
	// replicas that run.
	// +optional
	Replicas int32 `json:"replicas"`
	// configHash of the configuration that the pods should run.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ConfigHash string `json:"configHash,omitempty"`
	// credentialExpiry is when the broker credential of the pods expires; it is renewed well before.
	// +optional
	CredentialExpiry *metav1.Time `json:"credentialExpiry,omitempty"`
}
