package v1alpha1

// RabbitMQConnection says where a RabbitMQ server, or a cluster of them, is.
type RabbitMQConnection struct {
	// servers of one cluster, amqps://host:port or, without encryption, amqp://host:port; by default port 5671 and 5672. They are tried in
	// turn, beginning with the one that answered last. The certificate of amqps is checked against spec.tls.ca or, without it, the
	// public authorities.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^amqps?://[A-Za-z0-9.:_-]+$|^amqps?://[[][A-Fa-f0-9:]+[]](:[0-9]+)?$')",message="a server is amqps://host:port or amqp://host:port, without user, password and virtual host, for example amqps://mq.court.example:5671"
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.startsWith('amqps://')) || self.all(s, s.startsWith('amqp://'))",message="the servers are all amqps:// or all amqp://"
	Servers []string `json:"servers"`
	// virtualHost on the servers, for example custody. Left out, it is the one called `/`.
	// +optional
	// +default="/"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	VirtualHost string `json:"virtualHost,omitempty"`
	// heartbeat by which a connection that has broken unnoticed is found out, after one and a half of it, from 1s to 10m, by default 10s.
	// +optional
	// +default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="heartbeat must be between 1s and 10m, for example 10s"
	Heartbeat *Duration `json:"heartbeat,omitempty"`
}

// RabbitMQIdentity says what a message is known again by that says no id of its own.
// +kubebuilder:validation:Enum=Delivery;Content
type RabbitMQIdentity string

// The identities.
const (
	RabbitMQIdentityDelivery RabbitMQIdentity = "Delivery"
	RabbitMQIdentityContent  RabbitMQIdentity = "Content"
)

// RabbitMQSource reads a queue of a RabbitMQ server in AMQP 0.9.1, and acknowledges each message when the broker has it on disk. Several
// replicas share the queue.
type RabbitMQSource struct {
	// connection to the server.
	// +required
	Connection RabbitMQConnection `json:"connection"`
	// queue that is read, for example custody.arrests. It has to exist: the connector declares and binds nothing.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Queue string `json:"queue"`
	// prefetch is how many messages each pod may hold that are not acknowledged, from 1 to 4096, by default 256. Fewer are held while
	// messages are large: a pod holds about 32 MiB of them.
	// +optional
	// +default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Prefetch *int32 `json:"prefetch,omitempty"`
	// identity of messages that have neither the property message-id nor the headers of a CloudEvent. Delivery (the default): each is a message
	// of its own, and one that the server delivers again after a connection broke may be on the bus twice. Content: body and properties
	// together are its id, so that none is there twice; and of two that are alike in everything within the Integration's deduplicationWindow,
	// the second is dropped.
	// +optional
	// +default="Delivery"
	Identity RabbitMQIdentity `json:"identity,omitempty"`
	// deadLetter is where messages go that the bus can never take: with a body that is not in spec.source.format or does not follow its
	// schema, or is larger than 8Mi. They get the headers metip-error and metip-queue. Left out, the source stops at such a message, with
	// the reason in its status, until it is taken out of the queue.
	// +optional
	DeadLetter *RabbitMQTarget `json:"deadLetter,omitempty"`
}

// RabbitMQTarget is where messages are published. At least one of exchange and routingKey is needed.
// +kubebuilder:validation:XValidation:rule="has(self.exchange) || has(self.routingKey)",message="set exchange, routingKey or both, for example `{routingKey: arrests.dead}`, which is the queue of that name"
type RabbitMQTarget struct {
	// exchange that messages are published to; it has to exist. Left out, it is the default exchange, whose routing keys are the names of queues.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Exchange string `json:"exchange,omitempty"`
	// routingKey of the messages, for example arrests.dead. Left out, it is empty.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	RoutingKey string `json:"routingKey,omitempty"`
}

// RabbitMQSink publishes each message to an exchange of a RabbitMQ server in AMQP 0.9.1. A message is delivered when the server has
// confirmed it, which for persistent messages in durable queues means that it is on disk.
type RabbitMQSink struct {
	// connection to the server.
	// +required
	Connection RabbitMQConnection `json:"connection"`
	// publish says where a message goes, and how. A Route's destination may replace it.
	// +required
	Publish RabbitMQPublish `json:"publish"`
}

// RabbitMQUnroutable is what becomes of a message that the exchange leads to no queue.
// +kubebuilder:validation:Enum=DeadLetter;Retry;Ignore
type RabbitMQUnroutable string

// What becomes of messages that no queue takes.
const (
	RabbitMQUnroutableDeadLetter RabbitMQUnroutable = "DeadLetter"
	RabbitMQUnroutableRetry      RabbitMQUnroutable = "Retry"
	RabbitMQUnroutableIgnore     RabbitMQUnroutable = "Ignore"
)

// RabbitMQPublish says how a message is published.
// +kubebuilder:validation:XValidation:rule="has(self.exchange) || has(self.routingKey)",message="set exchange, routingKey or both, for example `{exchange: custody, routingKey: 'arrest.{data.unit}'}`"
type RabbitMQPublish struct {
	// exchange that messages are published to, for example custody; it has to exist. Left out, it is the default exchange, whose routing keys
	// are the names of queues.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Exchange string `json:"exchange,omitempty"`
	// routingKey of each message, with `{expression}`, for example `arrest.{data.unit}`; at most 255 bytes. Left out, it is empty.
	// +optional
	// +kubebuilder:validation:MinLength=1
	RoutingKey Template `json:"routingKey,omitempty"`
	// headers of each message besides those of the CloudEvent, by name, with `{expression}`. Their values are texts.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[[:print:]]{1,128}$') && !k.lowerAscii().startsWith('cloudevents') && !k.lowerAscii().startsWith('metip-') && !(k.lowerAscii() in ['traceparent', 'tracestate', 'cc', 'bcc']))",message="header names are 1 to 128 printable characters; cloudEvents:..., metip-..., traceparent and tracestate are set by the connector, and CC and BCC would send copies elsewhere: bind the exchange to further queues"
	Headers map[string]Template `json:"headers,omitempty"`
	// unroutable is what becomes of a message that the exchange leads to no queue: DeadLetter (the default) makes it a dead letter of the
	// Route, Retry tries again until its attempts are used up (the queue may be bound later), Ignore takes it for delivered, as an exchange with
	// subscribers that come and go may want it. The first two are AMQP's `mandatory`.
	// +optional
	// +default="DeadLetter"
	Unroutable RabbitMQUnroutable `json:"unroutable,omitempty"`
	// transient messages are kept in the server's memory only, and lost when it ends; by default messages are persistent.
	// +optional
	Transient bool `json:"transient,omitempty"`
	// priority in queues that know priorities, from 0 to 255. Left out, messages have none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	Priority *int32 `json:"priority,omitempty"`
	// expiration is how long a message may wait in a queue, from 1s to 8760h; the server then drops it, or does what the queue's
	// dead-letter-exchange says. Left out, it may wait for ever.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('8760h')",message="expiration must be between 1s and 8760h, for example 24h"
	Expiration *Duration `json:"expiration,omitempty"`
}

// RabbitMQService asks whoever reads the requests that an exchange leads to them, and waits for the reply (RPC, by direct reply-to): the body of
// the call is the body of the message. Method, path and query are the headers metip-method, metip-path and metip-query. The reply is
// published to the request's reply-to with its correlation-id; its header metip-status is the status of the answer, 200 where it has none.
// +kubebuilder:validation:XValidation:rule="has(self.exchange) || has(self.routingKey)",message="set exchange, routingKey or both, for example `{routingKey: persons}`, which is the queue of that name"
type RabbitMQService struct {
	// connection to the server.
	// +required
	Connection RabbitMQConnection `json:"connection"`
	// exchange that requests are published to; it has to exist. Left out, it is the default exchange, whose routing keys are the names of queues.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Exchange string `json:"exchange,omitempty"`
	// routingKey of each request, with `{expression}` over it, for example `persons.{headers["query-id"]}`. A value that is inserted is one word
	// of the key: one with a dot, * or # is answered 400.
	// +optional
	// +kubebuilder:validation:MinLength=1
	RoutingKey Template `json:"routingKey,omitempty"`
	// contentType of replies that do not say theirs, by default application/json.
	// +optional
	// +default="application/json"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+([ ]*;.*)?$') && self.matches('^[[:print:]]*$')",message="contentType is type/subtype, for example text/plain; charset=utf-8"
	ContentType string `json:"contentType,omitempty"`
}
