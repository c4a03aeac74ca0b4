package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Broker is the NATS JetStream cluster that carries the messages of the Integrations that use it: one that MetIP runs
// (`spec.managed`), or one that exists (`spec.external`). A Broker called `default` in the operator's namespace serves every Integration
// whose namespace it allows and that names no other.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=brk,categories=metip
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Servers",type=string,JSONPath=`.status.servers`
// +kubebuilder:printcolumn:name="Durability",type=string,JSONPath=`.spec.managed.durability`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Version",type=string,priority=1,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",message="a Broker's name is at most 40 of a-z, 0-9 and '-', begins with a letter and has no dots: it becomes part of host names",fieldPath=".metadata"
type Broker struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard metadata of an object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec is what is wanted.
	// +required
	Spec BrokerSpec `json:"spec"`
	// status is what was found.
	// +optional
	// +default={"observedGeneration": -1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}
	Status BrokerStatus `json:"status,omitempty,omitzero"`
}

// BrokerList is a list of Brokers.
// +kubebuilder:object:root=true
type BrokerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Broker `json:"items"`
}

// BrokerSpec is what is wanted of a broker: exactly one of managed and external.
// +kubebuilder:validation:XValidation:rule="[has(self.managed),has(self.external)].filter(x, x).size() == 1",message="set exactly one of managed and external, for example `managed: {replicas: 3, storage: {size: 50Gi}}`"
// +kubebuilder:validation:XValidation:rule="has(self.managed) == has(oldSelf.managed)",message="a managed broker cannot become external, nor the other way: make a second Broker and move Integrations to it"
type BrokerSpec struct {
	// managed asks MetIP to run the servers.
	// +optional
	Managed *ManagedBroker `json:"managed,omitempty"`
	// external names servers that somebody else runs.
	// +optional
	External *ExternalBroker `json:"external,omitempty"`
	// allowedNamespaces says whose Integrations may use this Broker: those of its own namespace (Same, the default), of All, or
	// of the namespaces that a Selector picks by their labels.
	// +optional
	// +default={"from": "Same"}
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`
}

// NamespacesFrom is how namespaces are chosen.
// +kubebuilder:validation:Enum=Same;All;Selector
type NamespacesFrom string

// The ways to choose namespaces.
const (
	NamespacesFromSame     NamespacesFrom = "Same"
	NamespacesFromAll      NamespacesFrom = "All"
	NamespacesFromSelector NamespacesFrom = "Selector"
)

// AllowedNamespaces chooses namespaces as the Gateway API does.
// +kubebuilder:validation:XValidation:rule="has(self.selector) == (self.from == 'Selector')",message="selector goes with from: Selector, and from: Selector needs a selector"
type AllowedNamespaces struct {
	// from is Same, All or Selector.
	// +required
	From NamespacesFrom `json:"from"`
	// selector over the labels of namespaces; only with from: Selector.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Durability says when the broker acknowledges a message.
// +kubebuilder:validation:Enum=Fsync;Replicated
type Durability string

// The durabilities.
const (
	// DurabilityFsync acknowledges a message when it is flushed to disk.
	DurabilityFsync Durability = "Fsync"
	// DurabilityReplicated acknowledges a message when a majority of servers hold it in memory; the disk follows within two minutes.
	DurabilityReplicated Durability = "Replicated"
)

// DeletionPolicy says what becomes of stored data when the object is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// The deletion policies.
const (
	DeletionPolicyRetain DeletionPolicy = "Retain"
	DeletionPolicyDelete DeletionPolicy = "Delete"
)

// ManagedBroker is a NATS JetStream cluster that MetIP runs.
// +kubebuilder:validation:XValidation:rule="self.replicas >= oldSelf.replicas",message="a broker cannot lose servers: raise replicas, or move Integrations to a smaller Broker"
// +kubebuilder:validation:XValidation:rule="oldSelf.replicas > 1 || self.replicas == 1",message="a broker of one server cannot become a cluster, for NATS would delete its streams: make a second Broker with replicas: 3 and move Integrations to it"
// +kubebuilder:validation:XValidation:rule="self.durability != 'Replicated' || self.replicas > 1",message="durability: Replicated needs 3 or 5 replicas: one server alone would acknowledge what only its memory holds"
type ManagedBroker struct {
	// replicas is the number of servers: 1, 3 or 5. Every stream is kept on 1 server, or on 3. It can only rise
	// from 3 to 5: NATS deletes the streams of a single server that joins a cluster.
	// +optional
	// +default=1
	// +kubebuilder:validation:Enum=1;3;5
	Replicas *int32 `json:"replicas,omitempty"`
	// durability says when a message counts as stored. Fsync (the default): it is flushed to disk. Replicated: a majority of
	// servers hold it in memory, which is faster, and a power failure of all of them can lose the last two minutes.
	// +optional
	// +default="Fsync"
	Durability Durability `json:"durability,omitempty"`
	// storage of each server: room for the messages, see also the retention of Integrations.
	// +required
	Storage BrokerStorage `json:"storage"`
	// deletionPolicy of the volumes and keys when the Broker is deleted. Retain (the default) keeps them, and a Broker of the same
	// name takes them up again.
	// +optional
	// +default="Retain"
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
	// template of the server pods: resources, placement, labels.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`
}

// BrokerStorage is a server's volume.
// +kubebuilder:validation:XValidation:rule="quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",message="a volume cannot shrink"
// +kubebuilder:validation:XValidation:rule="quantity(string(self.size)).compareTo(quantity('256Mi')) >= 0",message="size must be at least 256Mi, for example 50Gi"
// +kubebuilder:validation:XValidation:rule="has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",message="the StorageClass of existing volumes cannot change: make a second Broker and move Integrations to it"
type BrokerStorage struct {
	// size of each server's volume, at least 256Mi. It can only grow.
	// +required
	Size resource.Quantity `json:"size"`
	// className of the StorageClass; left out, it is the cluster's default. It cannot change.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClassName *string `json:"className,omitempty"`
}

// ExternalBroker is a NATS JetStream cluster that exists, in operator mode (accounts and users by JWT).
type ExternalBroker struct {
	// url of the servers, comma separated, for example tls://nats-0.example:4222,tls://nats-1.example:4222.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(nats|tls)://[^/@,[:space:][:cntrl:]]+(,(nats|tls)://[^/@,[:space:][:cntrl:]]+)*$')",message="url is a list of nats://host:port or tls://host:port, comma separated without spaces and without user:password@"
	URL string `json:"url"`
	// replicas of each stream: 1, 3 or 5, at most as many as there are servers.
	// +optional
	// +default=1
	// +kubebuilder:validation:Enum=1;3;5
	Replicas *int32 `json:"replicas,omitempty"`
	// credentials is a Secret in the operator's namespace with the keys bus.creds (a user that may do everything in the account
	// that holds the streams), edge.account and edge.seed (public key and signing seed of the account that the connectors
	// join), and optionally ca.crt, sys.creds and operator.seed; without the last two a connector's user cannot be revoked
	// before it expires. docs/broker.md shows how to make it.
	// +required
	Credentials SecretName `json:"credentials"`
}

// BrokerStatus is what was found.
type BrokerStatus struct {
	// observedGeneration is the generation that the conditions speak of; -1 means not seen yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions that apply: Accepted, ResolvedRefs, Deployed, Connected, StorageHealthy and Ready; Reconciling and Stalled while true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// servers that are healthy, of those wanted, as 3/3.
	// +optional
	// +kubebuilder:validation:MaxLength=8
	Servers string `json:"servers,omitempty"`
	// version of the NATS servers that run.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Version string `json:"version,omitempty"`
	// integrations that use this Broker.
	// +optional
	Integrations *int32 `json:"integrations,omitempty"`
}
