package v1alpha1

// STOMPConnection says where a message broker that speaks STOMP 1.1 or 1.2 is, ActiveMQ for example, or a cluster of them.
type STOMPConnection struct {
	// servers of one cluster, stomp+ssl://host:port or, without encryption, stomp://host:port; by default port 61614 and 61613. They are tried in
	// turn, beginning with the one that answered last. The certificate is checked against spec.tls.ca or, without it, the public
	// authorities.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^stomp([+]ssl)?://[A-Za-z0-9.:_-]+$|^stomp([+]ssl)?://[[][A-Fa-f0-9:]+[]](:[0-9]+)?$')",message="a server is stomp+ssl://host:port or stomp://host:port, without user and password, for example stomp+ssl://mq.court.example:61614"
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.startsWith('stomp://')) || self.all(s, s.startsWith('stomp+ssl://'))",message="the servers are all stomp+ssl:// or all stomp://"
	Servers []string `json:"servers"`
	// virtualHost that is asked for, for example custody (RabbitMQ has them). Left out, it is the server's host name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
	VirtualHost string `json:"virtualHost,omitempty"`
	// heartbeat by which a connection that has broken unnoticed is found out, after three of it, from 1s to 10m, by default 10s.
	// +optional
	// +default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="heartbeat must be between 1s and 10m, for example 10s"
	Heartbeat *Duration `json:"heartbeat,omitempty"`
}

// STOMPDestination is a queue as the broker calls it, for example /queue/arrests.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
type STOMPDestination string

// STOMPIdentity says what a message is known again by that says no id of its own.
// +kubebuilder:validation:Enum=Delivery;Content
type STOMPIdentity string

// STOMPSource reads a queue, and acknowledges each message when the bus has it on disk. Several replicas share the queue.
// +kubebuilder:validation:XValidation:rule="!has(self.deadLetter) || self.deadLetter != self.destination",message="deadLetter is the queue that is read: name another one"
type STOMPSource struct {
	// connection to the broker.
	// +required
	Connection STOMPConnection `json:"connection"`
	// destination that is read, a queue, for example /queue/arrests. A topic can be read too, but keeps nothing for a pod that is away.
	// +required
	Destination STOMPDestination `json:"destination"`
	// selector of JMS over the messages' headers, for example `unit = '7' AND priority > 4`: others stay in the queue. Not every broker has it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
	Selector string `json:"selector,omitempty"`
	// prefetch is how many messages a pod may have that are not acknowledged, from 1 to 4096, by default 256.
	// +optional
	// +default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Prefetch *int32 `json:"prefetch,omitempty"`
	// identity of messages without an id: Delivery (the default, each delivery is a message of its own) or Content (messages that are alike in body and
	// headers are one). Messages of JMS have an id.
	// +optional
	// +default="Delivery"
	Identity STOMPIdentity `json:"identity,omitempty"`
	// deadLetter is the destination for messages that the bus can never take, such as a body that is no JSON. Left out, the source stops at such
	// a message, and its status names it.
	// +optional
	DeadLetter STOMPDestination `json:"deadLetter,omitempty"`
}

// STOMPSink sends each message to a destination of a broker. The broker's receipt means delivered.
type STOMPSink struct {
	// connection to the broker.
	// +required
	Connection STOMPConnection `json:"connection"`
	// send says where a message goes, and how. A Route's destination may replace it.
	// +required
	Send STOMPSend `json:"send"`
}

// STOMPBody says which kind of JMS message a body becomes.
// +kubebuilder:validation:Enum=Auto;Bytes
type STOMPBody string

// STOMPSend sends each message to a destination.
type STOMPSend struct {
	// destination of the message, with `{expression}` over it if need be, for example /queue/arrests.{data.unit}.
	// +required
	// +kubebuilder:validation:MinLength=1
	Destination Template `json:"destination"`
	// headers besides those of CloudEvents (ce_...), by which consumers select. Their names should be ones that JMS takes for properties.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9_.-]{1,128}$') && !k.startsWith('ce_') && !k.lowerAscii().startsWith('cloudevents') && !(k in ['destination', 'content-type', 'content-length', 'receipt', 'message-id', 'subscription', 'ack', 'id', 'transaction', 'persistent', 'expires', 'priority', 'traceparent', 'tracestate']))",message="a header's name is letters, digits, '_', '.' and '-'; those of the protocol, of CloudEvents (ce_...) and of the trace context are set by the connector"
	Headers map[string]Template `json:"headers,omitempty"`
	// body is Auto (the default: a TextMessage of JSON, XML and Text, a BytesMessage of Binary) or Bytes (always a BytesMessage), where the broker
	// makes messages of JMS of them.
	// +optional
	// +default="Auto"
	Body STOMPBody `json:"body,omitempty"`
	// transient messages need not outlive a restart of the broker. Left out, they are persistent.
	// +optional
	Transient bool `json:"transient,omitempty"`
	// expiration after which the broker may drop a message that nobody has taken, from 1s to 8760h. Left out, it keeps them.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('8760h')",message="expiration must be between 1s and 8760h, for example 24h"
	Expiration *Duration `json:"expiration,omitempty"`
	// priority from 0 to 9, as JMS has it. Left out, it is the broker's default (4).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9
	Priority *int32 `json:"priority,omitempty"`
}
