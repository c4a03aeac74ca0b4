package v1alpha1

// NATSConnection says where the servers of a NATS cluster are that is not the bus.
type NATSConnection struct {
	// servers of one cluster, nats://host:port or, with spec.tls.ca or the public authorities, tls://host:port.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^(nats|tls)://[A-Za-z0-9.:_-]+$|^(nats|tls)://[[][A-Fa-f0-9:]+[]](:[0-9]+)?$')",message="a server is nats://host:port or tls://host:port, without user and password, for example nats://nats.court.example:4222"
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.startsWith('tls://')) || self.all(s, s.startsWith('nats://'))",message="the servers are all nats:// or all tls://"
	Servers []string `json:"servers"`
	// inboxPrefix of the replies, where the server's user may not subscribe to _INBOX.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$')",message="inboxPrefix is tokens with dots between them, for example _INBOX.metip"
	InboxPrefix string `json:"inboxPrefix,omitempty"`
}

// NATSName of a stream, a consumer or a domain, as JetStream calls it.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]+$`
type NATSName string

// NATSStart says where a consumer begins that the source makes.
// +kubebuilder:validation:Enum=All;New
type NATSStart string

// NATSSource reads a stream of JetStream by a durable pull consumer, and acknowledges each message when the bus has it on disk. Several replicas share the
// consumer.
type NATSSource struct {
	NATSConnection `json:",inline"`
	// stream that is read, for example CASES.
	// +required
	Stream NATSName `json:"stream"`
	// consumer of the stream, durable, pulled and with explicit acknowledgement, for example metip. One that is missing is made.
	// +required
	Consumer NATSName `json:"consumer"`
	// subjects that the consumer filters by, at most 32, with * and > if need be. Left out, one that is made has no filter, and one that is there keeps its own.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:items:Pattern=`^[^[:space:][:cntrl:]]+$`
	Subjects []string `json:"subjects,omitempty"`
	// start of a consumer that is made: All (the default) takes in what the stream has, New what comes from then on.
	// +optional
	// +default="All"
	Start NATSStart `json:"start,omitempty"`
	// domain of JetStream, where the stream is in another one than the server's.
	// +optional
	Domain NATSName `json:"domain,omitempty"`
	// maxPending is how many messages of a consumer that is made may be under way, of all pods together, from 1 to 4096, by default 256. 1 keeps the order strictly.
	// +optional
	// +default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	MaxPending *int32 `json:"maxPending,omitempty"`
	// deadLetter is the subject, of a stream, for messages that the bus can never take, such as a body that is no JSON. Left out, the source stops at such a
	// message, and its status names it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_=-]+([.][A-Za-z0-9_=-]+)*$')",message="deadLetter is tokens with dots between them, for example cases.dead"
	DeadLetter string `json:"deadLetter,omitempty"`
}

// NATSSink publishes each message on a NATS server.
type NATSSink struct {
	NATSConnection `json:",inline"`
	// domain of JetStream, where the stream is in another one than the server's.
	// +optional
	Domain NATSName `json:"domain,omitempty"`
	// publish says where a message goes, and how. A Route's destination may replace it.
	// +required
	Publish NATSPublish `json:"publish"`
}

// NATSConfirm says who has to have a message.
// +kubebuilder:validation:Enum=JetStream;Server
type NATSConfirm string

// NATSPublish publishes each message.
type NATSPublish struct {
	// subject of the message, with `{expression}` over it if need be, for example cases.{data.unit}. A value that is inserted is one token: one with a dot, a
	// space, * or > sends the message to the dead letters.
	// +required
	// +kubebuilder:validation:MinLength=1
	Subject Template `json:"subject"`
	// headers besides those of CloudEvents (ce-...).
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9_-]{1,128}$') && !k.lowerAscii().startsWith('nats-') && !k.lowerAscii().startsWith('ce-') && !k.lowerAscii().startsWith('metip-'))",message="a header's name is letters, digits, '_' and '-'; those of NATS (Nats-...), CloudEvents (ce-...) and the bus (Metip-...) are set by the connector"
	Headers map[string]Template `json:"headers,omitempty"`
	// confirm says who has to have the message before it counts as delivered: JetStream (the default), a stream, which knows it again by its id; or Server,
	// which gives it to those who listen at the time, and keeps it for nobody.
	// +optional
	// +default="JetStream"
	Confirm NATSConfirm `json:"confirm,omitempty"`
}
