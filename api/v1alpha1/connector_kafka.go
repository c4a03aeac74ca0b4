package v1alpha1

// KafkaSASL is how the user's password is proved.
// +kubebuilder:validation:Enum=PLAIN;SCRAM-SHA-256;SCRAM-SHA-512
type KafkaSASL string

// KafkaConnection says where a cluster is that speaks Kafka's protocol.
type KafkaConnection struct {
	// servers to begin with, host:port, by default port 9092, for example kafka-1.court.example:9093; they name the others.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[A-Za-z0-9._-]+(:[0-9]{1,5})?$|^[[][A-Fa-f0-9:]+[]](:[0-9]{1,5})?$')",message="a server is host:port, without scheme, user and password, for example kafka-1.court.example:9093"
	Servers []string `json:"servers"`
	// encryption Required (the default) or Disabled, which sends everything in the clear. The certificate is checked against spec.tls.ca or, without it, the
	// public authorities.
	// +optional
	// +default="Required"
	Encryption Encryption `json:"encryption,omitempty"`
	// sasl by which the password of auth.basic is proved: SCRAM-SHA-512 (the default), SCRAM-SHA-256 or PLAIN.
	// +optional
	// +default="SCRAM-SHA-512"
	SASL KafkaSASL `json:"sasl,omitempty"`
}

// KafkaTopic is the name of a topic.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=249
// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]+$`
type KafkaTopic string

// KafkaStart says where a group begins that has no offsets.
// +kubebuilder:validation:Enum=Beginning;Now
type KafkaStart string

// KafkaSource reads topics as a member of a consumer group, and commits an offset when the bus has everything before it on disk. Several replicas share the
// partitions.
// +kubebuilder:validation:XValidation:rule="!has(self.deadLetter) || !(self.deadLetter in self.topics)",message="deadLetter is a topic that is read: name another one"
type KafkaSource struct {
	// connection to the cluster.
	// +required
	Connection KafkaConnection `json:"connection"`
	// topics that are read, at most 64, for example [arrests, releases].
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Topics []KafkaTopic `json:"topics"`
	// group of consumers, which the offsets belong to. Left out, it is metip-<namespace>-<name>. Another group begins anew.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]+$`
	Group string `json:"group,omitempty"`
	// start of a group that has no offsets: Beginning (the default) takes in what the topics hold, Now what comes from then on.
	// +optional
	// +default="Beginning"
	Start KafkaStart `json:"start,omitempty"`
	// deadLetter is the topic for records that the bus can never take, such as a value that is no JSON. Left out, the source stops at such a record, and its
	// status names it.
	// +optional
	DeadLetter KafkaTopic `json:"deadLetter,omitempty"`
}

// KafkaCompression of what is sent.
// +kubebuilder:validation:Enum=None;Gzip;Snappy;LZ4;Zstd
type KafkaCompression string

// KafkaSink produces each message to a topic. Delivered means that all replicas in sync have it.
type KafkaSink struct {
	// connection to the cluster.
	// +required
	Connection KafkaConnection `json:"connection"`
	// compression of batches: None (the default), Gzip, Snappy, LZ4 or Zstd.
	// +optional
	// +default="None"
	Compression KafkaCompression `json:"compression,omitempty"`
	// produce says where a message goes, and how. A Route's destination may replace it.
	// +required
	Produce KafkaProduce `json:"produce"`
}

// KafkaProduce produces each message.
type KafkaProduce struct {
	// topic of the message, with `{expression}` over it if need be, for example arrests.{data.unit}. It has to be there: a message for a fixed topic waits until it
	// is, one for a topic that an expression yields goes to the dead letters.
	// +required
	// +kubebuilder:validation:MinLength=1
	Topic Template `json:"topic"`
	// key of the record, which decides its partition, for example `{data.personId}`. Left out, it is the message's partition key; without one records are spread.
	// +optional
	// +kubebuilder:validation:MinLength=1
	Key Template `json:"key,omitempty"`
	// headers besides those of CloudEvents (ce_...).
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9_.-]{1,128}$') && !k.lowerAscii().startsWith('ce_') && !k.lowerAscii().startsWith('metip-') && k.lowerAscii() != 'content-type')",message="a header's name is letters, digits, '_', '.' and '-'; those of CloudEvents (ce_...), the bus (metip-...) and content-type are set by the connector"
	Headers map[string]Template `json:"headers,omitempty"`
}
