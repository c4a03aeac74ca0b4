package v1alpha1

// MQTTConnection says where a message broker that speaks MQTT is, Mosquitto for example, or a cluster of them.
type MQTTConnection struct {
	// servers of one cluster, which share their sessions: mqtts://host:port or, without encryption, mqtt://host:port; by default port 8883 and 1883. They are
	// tried in turn, beginning with the one that answered last. The certificate is checked against spec.tls.ca or, without it, the public authorities.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^mqtts?://[A-Za-z0-9.:_-]+$|^mqtts?://[[][A-Fa-f0-9:]+[]](:[0-9]+)?$')",message="a server is mqtts://host:port or mqtt://host:port, without user and password, for example mqtts://mq.court.example:8883"
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.startsWith('mqtt://')) || self.all(s, s.startsWith('mqtts://'))",message="the servers are all mqtts:// or all mqtt://"
	Servers []string `json:"servers"`
	// version of MQTT, "5" (the default) or "3.1.1". The latter carries topics and bodies only: no headers, no CloudEvents, no reason why something is refused.
	// +optional
	// +default="5"
	Version MQTTVersion `json:"version,omitempty"`
	// keepAlive by which a connection that has broken unnoticed is found out, after one and a half of it, from 2s to 10m, by default 30s.
	// +optional
	// +default="30s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('2s') && duration(self) <= duration('10m')",message="keepAlive must be between 2s and 10m, for example 30s"
	KeepAlive *Duration `json:"keepAlive,omitempty"`
}

// MQTTVersion of the protocol.
// +kubebuilder:validation:Enum="5";"3.1.1"
type MQTTVersion string

// MQTTQoS is how a message is confirmed: 1 at least once, 2 in two steps, so that the broker has it once while the connection holds.
// +kubebuilder:validation:Enum=1;2
type MQTTQoS int32

// MQTTIdentity says what a message is known again by that says no id of its own.
// +kubebuilder:validation:Enum=Delivery;Content
type MQTTIdentity string

// MQTTSource subscribes to topics in a session that the broker keeps, and acknowledges each message when the bus has it on disk. One pod has the
// session; several Connectors share the work by `share`.
// +kubebuilder:validation:XValidation:rule="!has(self.idProperty) || !has(self.connection.version) || self.connection.version == '5'",message="MQTT 3.1.1 has no user properties: leave idProperty out, and say `identity: Content` if messages that are alike are one"
type MQTTSource struct {
	// connection to the broker.
	// +required
	Connection MQTTConnection `json:"connection"`
	// topics that are read, up to 32, with + for a level and # for the last ones, for example sensors/+/door. A filter that is taken out of this list
	// stays in the broker's session until clientID changes.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([^+#[:cntrl:]]*|[+])(/([^+#[:cntrl:]]*|[+]))*(/#)?$|^#$') && !self.startsWith('$share/')",message="+ stands for a whole level and # for the last ones, for example sensors/+/door or sensors/#; a group is named by share"
	Topics []string `json:"topics"`
	// qos at most, 1 (the default) or 2. Messages that are published with QoS 0 are taken in, and lost when a pod dies or the bus is away.
	// +optional
	// +default=1
	QoS MQTTQoS `json:"qos,omitempty"`
	// share is the group of a shared subscription ($share/<group>/...): each message goes to one of the Connectors that name it. Left out, each gets all.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^/+#[:cntrl:]]+$`
	Share string `json:"share,omitempty"`
	// clientID names the session, and is nobody else's. Left out, it is metip-<namespace>-<name>. Another one is another session: what the broker has for
	// the former stays there, until it expires.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
	ClientID string `json:"clientID,omitempty"`
	// sessionExpiry is how long the broker keeps the session, and messages, of a pod that is away, from 1m to 8760h, by default 168h. With version "3.1.1" the
	// broker's own setting holds.
	// +optional
	// +default="168h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="sessionExpiry must be between 1m and 8760h, for example 168h"
	SessionExpiry *Duration `json:"sessionExpiry,omitempty"`
	// prefetch is how many messages a pod may have that are not acknowledged (the receive maximum), from 1 to 4096, by default 256.
	// +optional
	// +default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Prefetch *int32 `json:"prefetch,omitempty"`
	// identity of messages that are no CloudEvents and have no idProperty: Delivery (the default, each is a message of its own) or Content (messages that are
	// alike in topic, body and properties are one: not for readings that may repeat).
	// +optional
	// +default="Delivery"
	Identity MQTTIdentity `json:"identity,omitempty"`
	// idProperty is the user property that holds the producer's id of a message, for example message-id.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
	IDProperty string `json:"idProperty,omitempty"`
	// deadLetter is the topic for messages that the bus can never take, such as a body that is no JSON. Left out, the source stops at such a message, and
	// its status names the topic. It is none that is read.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[^+#[:cntrl:]]*$`
	DeadLetter string `json:"deadLetter,omitempty"`
}

// MQTTSink publishes each message. The broker's acknowledgement means delivered.
// +kubebuilder:validation:XValidation:rule="!has(self.connection.version) || self.connection.version == '5' || !(has(self.publish.properties) || has(self.publish.expiration))",message="MQTT 3.1.1 has no properties and no expiration: leave them out, or set `version: \"5\"`"
type MQTTSink struct {
	// connection to the broker.
	// +required
	Connection MQTTConnection `json:"connection"`
	// publish says where a message goes, and how. A Route's destination may replace it.
	// +required
	Publish MQTTPublish `json:"publish"`
}

// MQTTPublish publishes each message.
type MQTTPublish struct {
	// topic of the message, with `{expression}` over it if need be, for example court/{data.unit}/arrests. Wildcards are none.
	// +required
	// +kubebuilder:validation:MinLength=1
	Topic Template `json:"topic"`
	// qos 1 (the default) or 2.
	// +optional
	// +default=1
	QoS MQTTQoS `json:"qos,omitempty"`
	// retain makes the broker keep the last message of each topic for who subscribes later.
	// +optional
	Retain bool `json:"retain,omitempty"`
	// properties of the user's (MQTT 5), besides those of CloudEvents.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9_.-]{1,128}$') && !k.startsWith('metip-') && !(k in ['specversion', 'id', 'source', 'type', 'subject', 'time', 'partitionkey', 'marking', 'dataschema', 'datacontenttype', 'traceparent', 'tracestate']))",message="a property's name is letters, digits, '_', '.' and '-'; those of CloudEvents, metip-... and the trace context are set by the connector"
	Properties map[string]Template `json:"properties,omitempty"`
	// expiration after which the broker drops a message that it could not give to a subscriber, from 1s to 8760h (MQTT 5). Left out, it keeps them.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('8760h')",message="expiration must be between 1s and 8760h, for example 24h"
	Expiration *Duration `json:"expiration,omitempty"`
}
