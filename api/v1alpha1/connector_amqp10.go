package v1alpha1

// AMQP10Connection says where a message broker that speaks AMQP 1.0 is, Artemis or Azure Service Bus for example, or a cluster of them.
type AMQP10Connection struct {
	// servers of one cluster, amqps://host:port or, without encryption, amqp://host:port; by default port 5671 and 5672. They are tried in turn,
	// beginning with the one that answered last. The certificate is checked against spec.tls.ca or, without it, the public authorities.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^amqps?://[A-Za-z0-9.:_-]+$|^amqps?://[[][A-Fa-f0-9:]+[]](:[0-9]+)?$')",message="a server is amqps://host:port or amqp://host:port, without user and password, for example amqps://mq.court.example:5671"
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.startsWith('amqp://')) || self.all(s, s.startsWith('amqps://'))",message="the servers are all amqps:// or all amqp://"
	Servers []string `json:"servers"`
	// hostname that is asked for, where a broker keeps several apart by it: of RabbitMQ it is vhost: and the virtual host's name, for example
	// vhost:custody. Left out, it is the server's host name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
	Hostname string `json:"hostname,omitempty"`
	// heartbeat by which a connection that has broken unnoticed is found out: it is one over which nothing comes for three of it. From 1s to 10m, by
	// default 10s.
	// +optional
	// +default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="heartbeat must be between 1s and 10m, for example 10s"
	Heartbeat *Duration `json:"heartbeat,omitempty"`
}

// AMQP10Address is a queue as the broker calls it, for example arrests, or of RabbitMQ /amq/queue/arrests.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
type AMQP10Address string

// AMQP10Identity says what a message is known again by that says no id of its own.
// +kubebuilder:validation:Enum=Delivery;Content
type AMQP10Identity string

// AMQP10Source receives from an address, and accepts each message when the bus has it on disk. Several replicas share the queue.
// +kubebuilder:validation:XValidation:rule="!has(self.deadLetter) || self.deadLetter != self.address",message="deadLetter is the address that is read: name another one"
// +kubebuilder:validation:XValidation:rule="!has(self.deadLetter) || !has(self.reject) || !self.reject",message="set deadLetter (an address of yours) or reject (the broker's own dead letters), not both"
type AMQP10Source struct {
	// connection to the broker.
	// +required
	Connection AMQP10Connection `json:"connection"`
	// address that is read, a queue, for example arrests. A subscription of a topic is read under the address that the broker gives it.
	// +required
	Address AMQP10Address `json:"address"`
	// prefetch is how many messages a pod may have that are not settled, the credit of the link, from 1 to 4096, by default 256.
	// +optional
	// +default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Prefetch *int32 `json:"prefetch,omitempty"`
	// identity of messages without message-id: Delivery (the default, each delivery is a message of its own) or Content (messages that are alike in
	// body and properties are one).
	// +optional
	// +default="Delivery"
	Identity AMQP10Identity `json:"identity,omitempty"`
	// deadLetter is the address for messages that the bus can never take, such as a body that is no JSON. Left out, and without reject, the source
	// stops at such a message, and its status names it.
	// +optional
	DeadLetter AMQP10Address `json:"deadLetter,omitempty"`
	// reject gives such messages back as rejected, with the reason: Azure Service Bus, and queues of others that have dead letters, keep them there. A
	// broker without dead letters drops them.
	// +optional
	Reject bool `json:"reject,omitempty"`
}

// AMQP10Sink sends each message to an address of a broker. Its outcome `accepted` means delivered.
type AMQP10Sink struct {
	// connection to the broker.
	// +required
	Connection AMQP10Connection `json:"connection"`
	// send says where a message goes, and how. A Route's destination may replace it.
	// +required
	Send AMQP10Send `json:"send"`
}

// AMQP10Body says which section of the message a body is in.
// +kubebuilder:validation:Enum=Data;Value
type AMQP10Body string

// AMQP10Send sends each message to an address.
type AMQP10Send struct {
	// address of the message, with `{expression}` over it if need be, for example court.arrests or arrests.{data.unit}.
	// +required
	// +kubebuilder:validation:MinLength=1
	Address Template `json:"address"`
	// subject of the message, for example arrest: what RabbitMQ routes by when the address is /exchange/NAME, Azure Service Bus filters by as the
	// label, and JMS calls JMSType.
	// +optional
	Subject Template `json:"subject,omitempty"`
	// properties of the application besides those of CloudEvents (cloudEvents_...), by which consumers select.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[^[:cntrl:]]{1,128}$') && !k.lowerAscii().startsWith('cloudevents') && !k.lowerAscii().startsWith('metip-') && !(k.lowerAscii() in ['traceparent', 'tracestate']))",message="a property's name has 1 to 128 characters; those of CloudEvents (cloudEvents...), of the trace context and metip-... are set by the connector"
	Properties map[string]Template `json:"properties,omitempty"`
	// body is Data (the default, the bytes as they are) or Value (an amqp-value: a string of JSON, XML and Text, binary of Binary), for consumers that
	// ask for a TextMessage of JMS.
	// +optional
	// +default="Data"
	Body AMQP10Body `json:"body,omitempty"`
	// grouped messages say their partition key as the group-id (JMSXGroupID, a session of Azure Service Bus), so that one consumer has all of a group,
	// in their order.
	// +optional
	Grouped bool `json:"grouped,omitempty"`
	// transient messages need not outlive a restart of the broker. Left out, they are durable.
	// +optional
	Transient bool `json:"transient,omitempty"`
	// expiration after which the broker may drop a message that nobody has taken (ttl), from 1s to 1000h. Left out, it keeps them.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1000h')",message="expiration must be between 1s and 1000h, for example 24h"
	Expiration *Duration `json:"expiration,omitempty"`
	// priority from 0 to 9. Left out, it is the protocol's default (4).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9
	Priority *int32 `json:"priority,omitempty"`
}
