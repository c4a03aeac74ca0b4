package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// ObjectName names an object of this namespace.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=52
// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
type ObjectName string

// Namespace names a namespace.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
type Namespace string

// Expression is a CEL expression (https://cel.dev). Variables: `data` (the decoded body; text and binary bodies are a
// string and bytes), `type`, `id`, `source`, `subject` (strings), `time` (timestamp) and `headers` (map of strings, lower-case
// names). It is compiled when the manifest is applied: one that does not compile is refused with the position of the error.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=4096
type Expression string

// Template is text in which each `{...}` holds a CEL expression whose value is inserted, for example
// `/cases/{data.id}`. Write `{{` for a plain brace. Where the text is part of a URL, inserted values are percent-encoded.
// +kubebuilder:validation:MaxLength=2048
type Template string

// Duration is a span of time as Kubernetes writes it: 500ms, 30s, 5m, 168h, 1h30m.
// +kubebuilder:validation:MaxLength=20
// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
type Duration string

// LocalRef refers to an object of the same namespace by its name.
type LocalRef struct {
	// name of the object.
	// +required
	Name ObjectName `json:"name"`
}

// NamespacedRef refers to an object, in this namespace unless `namespace` says otherwise. A reference into another
// namespace works only when the owner of the target allows it.
type NamespacedRef struct {
	// name of the object.
	// +required
	Name ObjectName `json:"name"`
	// namespace of the object; left out, it is this object's own.
	// +optional
	Namespace *Namespace `json:"namespace,omitempty"`
}

// SecretKey names one key of a Secret in this namespace. The connector pod mounts that key alone and follows its
// changes; the operator never reads it.
type SecretKey struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// key within the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key"`
}

// SecretName names a Secret of this namespace whose type fixes its keys.
type SecretName struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// ConfigMapKey names one key of a ConfigMap in this namespace.
type ConfigMapKey struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// key within the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key"`
}

// TLS says how a connection, or a listener, is secured.
type TLS struct {
	// ca is a PEM bundle that the peer's certificate must chain to. Where the Connector calls a system, leaving it out
	// means the certificate authorities that the connector image carries; where it listens, setting it means that callers must show a
	// certificate of their own (mutual TLS).
	// +optional
	CA *CASource `json:"ca,omitempty"`
	// certificate is a Secret of type kubernetes.io/tls (keys tls.crt and tls.key): what the Connector shows to the
	// system that asks for a certificate or, where it listens, to its callers.
	// +optional
	Certificate *SecretName `json:"certificate,omitempty"`
	// serverName that the peer's certificate must carry, when it is not the host of the address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
}

// CASource is exactly one place that holds a PEM bundle.
// +kubebuilder:validation:XValidation:rule="[has(self.secret),has(self.configMap)].filter(x, x).size() == 1",message="set exactly one of secret and configMap, for example `ca: {configMap: {name: trust, key: ca.crt}}`"
type CASource struct {
	// secret key that holds the bundle.
	// +optional
	Secret *SecretKey `json:"secret,omitempty"`
	// configMap key that holds the bundle, as trust-manager writes it.
	// +optional
	ConfigMap *ConfigMapKey `json:"configMap,omitempty"`
}

// Retry says how often and how patiently a delivery is tried again.
type Retry struct {
	// attempts before the message goes to the dead letters; 0 means for ever. Inherited; at last 10.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Attempts *int32 `json:"attempts,omitempty"`
	// backoff before the second attempt, from 10ms to 1h; it doubles with each attempt, with jitter, up to maxBackoff.
	// Inherited; at last 1s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1h')",message="backoff must be between 10ms and 1h, for example 500ms"
	Backoff *Duration `json:"backoff,omitempty"`
	// maxBackoff is the longest pause between two attempts, from 10ms to 24h. Inherited; at last 5m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="maxBackoff must be between 10ms and 24h, for example 5m"
	MaxBackoff *Duration `json:"maxBackoff,omitempty"`
	// onTimeout says what an attempt means that is not answered within `timeout`: nobody knows whether the system did the work. `Wait`:
	// the system is taken to be down; the message loses no attempt, and all wait until the system answers again. `Retry`: this message
	// is taken to be slow; it loses an attempt and the others go on. `DeadLetter`: the message goes to the dead letters at once (reason
	// TimedOut), for somebody to look before the work is done twice. Inherited; at last `Wait`.
	// +optional
	OnTimeout *TimeoutPolicy `json:"onTimeout,omitempty"`
}

// TimeoutPolicy is what an attempt without an answer means.
// +kubebuilder:validation:Enum=Wait;Retry;DeadLetter
type TimeoutPolicy string

const (
	// TimeoutWait takes the system to be down.
	TimeoutWait TimeoutPolicy = "Wait"
	// TimeoutRetry takes the message to be slow.
	TimeoutRetry TimeoutPolicy = "Retry"
	// TimeoutDeadLetter leaves it to a person.
	TimeoutDeadLetter TimeoutPolicy = "DeadLetter"
)

// Delivery says what a destination is promised. A field that is left out is inherited, each on its own: from the
// destination, then the Route, then the Integration, then the value documented at the field.
// (Hence no OpenAPI defaults here: they would end the inheritance.)
// +kubebuilder:validation:XValidation:rule="!has(self.retry) || !has(self.retry.backoff) || !has(self.retry.maxBackoff) || duration(self.retry.backoff) <= duration(self.retry.maxBackoff)",message="retry.backoff must not exceed retry.maxBackoff"
// +kubebuilder:validation:XValidation:rule="!has(self.lanes) || has(self.order) && self.order == 'PerKey'",message="lanes belong to order: PerKey, in the same place: `delivery: {order: PerKey, lanes: 8}`; Strict is one lane, and None has none"
// +kubebuilder:validation:XValidation:rule="!has(self.key) || has(self.order) && self.order == 'PerKey'",message="a key belongs to order: PerKey, in the same place: `delivery: {order: PerKey, key: data.caseId}`"
// +kubebuilder:validation:XValidation:rule="!has(self.key) || !has(self.lanes) || self.lanes == 1",message="a key of its own is kept by one lane, for lanes follow the source's partition key: leave lanes out, or leave key out and let the source say `partitionKey: data.caseId`"
type Delivery struct {
	// timeout of one attempt, from 100ms to 15m. Inherited; at last 30s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('15m')",message="timeout must be between 100ms and 15m, for example 30s"
	Timeout *Duration `json:"timeout,omitempty"`
	// retry policy for errors that may pass: the system is down, busy, or refuses our credentials. A message that the system
	// will never accept goes to the dead letters at once.
	// +optional
	Retry *Retry `json:"retry,omitempty"`
	// expiry is how long after its source took it in a message is still worth delivering, from 1s to 8760h, for example 15m; 0s means for
	// ever. One that is older when an attempt is due is not delivered: it goes to the dead letters, with the reason Expired. So does, whatever
	// is set here, a message whose sender gave it an earlier end (the CloudEvents extension `expirytime`, a time as RFC 3339 has it). What a
	// Replay delivers again counts from then, and its `expirytime` no longer does. Inherited; at last 0s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) == duration('0s') || duration(self) >= duration('1s') && duration(self) <= duration('8760h')",message="expiry must be between 1s and 8760h, for example 15m, or 0s for never"
	Expiry *Duration `json:"expiry,omitempty"`
	// order in which messages are delivered. `None`: in parallel. `PerKey`: messages of one key one after the other, as the bus stored
	// them. `Strict`: all messages one after the other, each once the one before is done with. A message is done with when the
	// system has confirmed it, when a filter let it go, or when it is among the dead letters. After a fault the last messages may be
	// delivered again, from an earlier one on and in their order. A destination inherits order, with lanes and key, from its Route; an
	// Integration has none; at last `None`. It cannot change while the destination lives.
	// +optional
	Order DeliveryOrder `json:"order,omitempty"`
	// lanes of order `PerKey`: 1, 2, 4, 8 or 16 parts that the keys are spread over. Each lane is served by one pod at a time, hence more
	// pods than lanes are no faster. At last 4, and 1 where there is a key. It cannot change while the destination lives.
	// +optional
	// +kubebuilder:validation:Enum=1;2;4;8;16
	Lanes int32 `json:"lanes,omitempty"`
	// key of order `PerKey` is a CEL expression over the message as it was published, for example data.caseId, that yields the key whose
	// order is kept. Left out, it is the partition key that the source gave (`partitionKey` of the Connector's source). A key of its own
	// takes one lane, which one pod serves. Messages for which it yields nothing are in order among themselves. It cannot change while
	// the destination lives.
	// +optional
	Key Expression `json:"key,omitempty"`
}

// DeliveryOrder of messages.
// +kubebuilder:validation:Enum=None;PerKey;Strict
type DeliveryOrder string

// The orders.
const (
	OrderNone   DeliveryOrder = "None"
	OrderPerKey DeliveryOrder = "PerKey"
	OrderStrict DeliveryOrder = "Strict"
)

// PodTemplate is the part of a pod that may be chosen; everything else (service account, security context,
// volumes, ports) is the operator's.
// +kubebuilder:validation:XValidation:rule="!has(self.labels) || self.labels.all(k, !k.startsWith('bus.metip.dev/') && !k.startsWith('app.kubernetes.io/'))",message="labels under bus.metip.dev/ and app.kubernetes.io/ are the operator's: choose another prefix"
// +kubebuilder:validation:XValidation:rule="!has(self.annotations) || self.annotations.all(k, !k.startsWith('bus.metip.dev/') && !k.startsWith('app.kubernetes.io/'))",message="annotations under bus.metip.dev/ and app.kubernetes.io/ are the operator's: choose another prefix"
type PodTemplate struct {
	// labels added to the pods, for example `{cost-centre: custody}`; at most 16, none under bus.metip.dev/ or app.kubernetes.io/.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Labels map[string]string `json:"labels,omitempty"`
	// annotations added to the pods. Only those that the operator's --allowed-pod-annotations flag lists are accepted,
	// since an annotation can attach networks or side-cars.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Annotations map[string]string `json:"annotations,omitempty"`
	// resources of the pod's container. Left out, a connector pod requests 10m of CPU and 32Mi of memory, and is limited to 256Mi; an
	// administrator may have set other values for the whole operator.
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// nodeSelector limits the nodes that the pods may run on, by their labels, for example `{topology.kubernetes.io/zone: a}`.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// tolerations of the pods: the taints of nodes that they may run on all the same.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// topologySpreadConstraints of the pods. Left out, pods of one object spread over nodes where they can.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// priorityClassName of the pods, which decides who goes first when a node is full. Left out, it is the cluster's default.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// imagePullSecrets of the pods: Secrets of this namespace with credentials of the image registry.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	ImagePullSecrets []SecretName `json:"imagePullSecrets,omitempty"`
	// hostAliases adds lines to the pods' /etc/hosts, for systems that no name server knows.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=ip
	HostAliases []corev1.HostAlias `json:"hostAliases,omitempty"`
}
