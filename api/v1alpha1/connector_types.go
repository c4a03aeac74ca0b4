package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Connector is one system's endpoint on the bus: a source that takes messages in from the system, a sink that
// delivers messages to it, or a service that is called. The operator runs it as pods of its own.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=conn,categories=metip
// +kubebuilder:printcolumn:name="Role",type=string,JSONPath=`.status.role`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.status.type`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Routes",type=integer,JSONPath=`.status.attachedRoutes`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Integration",type=string,priority=1,JSONPath=`.spec.integrationRef.name`
// +kubebuilder:printcolumn:name="Replicas",type=integer,priority=1,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",message="a Connector's name is at most 52 of a-z, 0-9 and '-', begins with a letter and has no dots: it becomes part of subjects and host names",fieldPath=".metadata"
type Connector struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard metadata of an object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec is what is wanted.
	// +required
	Spec ConnectorSpec `json:"spec"`
	// status is what was found.
	// +optional
	// +default={"observedGeneration": -1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}
	Status ConnectorStatus `json:"status,omitempty,omitzero"`
}

// ConnectorList is a list of Connectors.
// +kubebuilder:object:root=true
type ConnectorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Connector `json:"items"`
}

// ConnectorSpec is what is wanted of a Connector: exactly one of source, sink and service.
// +kubebuilder:validation:XValidation:rule="[has(self.source),has(self.sink),has(self.service)].filter(x, x).size() == 1",message="set exactly one of source, sink and service, for example `source: {http: {}}`"
// +kubebuilder:validation:XValidation:rule="has(self.source) == has(oldSelf.source) && has(self.sink) == has(oldSelf.sink)",message="a Connector cannot change between source, sink and service: make another one"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && (has(self.source.http) || has(self.source.soap))) || has(self.auth)",message="a Connector that listens needs auth: set basic, bearer or hmac, or say `auth: {anonymous: {}}` to let everybody in"
// +kubebuilder:validation:XValidation:rule="!(has(self.sink) && has(self.sink.http)) || has(self.auth)",message="an HTTP sink needs auth: set basic, bearer or hmac, or say `auth: {anonymous: {}}` for a system that asks for none"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.httpPoll)) || (has(self.auth) && !has(self.auth.hmac) && (!has(self.replicas) || self.replicas <= 1))",message="httpPoll needs auth, basic or bearer, or `auth: {anonymous: {}}` for a system that asks for none; and one pod asks: leave replicas out, or set 0 or 1"
// +kubebuilder:validation:XValidation:rule="!((has(self.sink) && has(self.sink.soap)) || (has(self.service) && has(self.service.soap))) || has(self.auth)",message="a SOAP system needs auth: set basic, bearer or hmac, or say `auth: {anonymous: {}}` for a system that asks for none"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.soap) && has(self.source.soap.security) && self.source.soap.security != 'None') || (has(self.sink) && has(self.sink.soap) && has(self.sink.soap.security) && self.sink.soap.security != 'None') || (has(self.service) && has(self.service.soap) && has(self.service.soap.security) && self.service.soap.security != 'None')) || (has(self.auth) && has(self.auth.basic))",message="a UsernameToken holds a user name and a password: set `auth: {basic: {secret: {name: ...}}}`, or leave security out"
// +kubebuilder:validation:XValidation:rule="!((has(self.sink) && has(self.sink.postgres)) || (has(self.service) && has(self.service.postgres))) || (has(self.auth) && has(self.auth.basic))",message="PostgreSQL needs a user name and password: set `auth: {basic: {secret: {name: ...}}}`"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.postgres)) || (has(self.auth) && has(self.auth.basic))",message="PostgreSQL needs a user name and password: set `auth: {basic: {secret: {name: ...}}}`"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.postgres) && has(self.source.postgres.capture)) || !has(self.replicas) || self.replicas <= 1",message="a replication slot has one reader: leave replicas out or set it to 1; a pod that dies is replaced, and goes on where it stopped"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.postgres) && (has(self.source.postgres.table) || has(self.source.postgres.notify))) || !has(self.replicas) || self.replicas <= 1",message="one pod asks a table, or listens to a channel: leave replicas out, or set 0 or 1; a pod that dies is replaced"
// +kubebuilder:validation:XValidation:rule="!(has(self.service) && has(self.service.http)) || has(self.auth)",message="an HTTP service needs auth: set basic, bearer or hmac, or say `auth: {anonymous: {}}` for a system that asks for none"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.nats)) || (has(self.sink) && has(self.sink.nats)) || (has(self.service) && has(self.service.nats))) || (has(self.auth) && !has(self.auth.hmac))",message="NATS needs auth: set basic or bearer, or say `auth: {anonymous: {}}` for servers that ask for none"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.rabbitmq)) || (has(self.sink) && has(self.sink.rabbitmq)) || (has(self.service) && has(self.service.rabbitmq))) || (has(self.auth) && has(self.auth.basic))",message="RabbitMQ needs a user name and password: set `auth: {basic: {secret: {name: ...}}}`"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.sftp)) || (has(self.sink) && has(self.sink.sftp))) || (has(self.auth) && (has(self.auth.basic) || has(self.auth.ssh)) && !has(self.tls))",message="SFTP needs `auth: {ssh: {user: ..., secret: {name: ...}}}` with a private key or `auth: {basic: {secret: {name: ...}}}` with a password, and has no tls: the server is known by connection.hostKeys"
// +kubebuilder:validation:XValidation:rule="!has(self.auth) || !has(self.auth.ssh) || (has(self.source) && has(self.source.sftp)) || (has(self.sink) && has(self.sink.sftp)) || (has(self.source) && has(self.source.custom)) || (has(self.sink) && has(self.sink.custom)) || (has(self.service) && has(self.service.custom))",message="auth.ssh goes with sftp and custom only"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.sftp)) || !has(self.replicas) || self.replicas <= 1",message="one pod takes in the files of a folder at a time: leave replicas out, or set 0 or 1"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.amqp10)) || (has(self.sink) && has(self.sink.amqp10))) || (has(self.auth) && (has(self.auth.basic) || has(self.auth.anonymous)))",message="an AMQP 1.0 broker needs auth: set `auth: {basic: {secret: {name: ...}}}`, or say `auth: {anonymous: {}}` for one that asks for no password, or knows the client by tls.certificate"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.kafka)) || (has(self.sink) && has(self.sink.kafka))) || (has(self.auth) && (has(self.auth.basic) || has(self.auth.anonymous)))",message="Kafka needs auth: set `auth: {basic: {secret: {name: ...}}}`, or say `auth: {anonymous: {}}` for a cluster that asks for no password"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.stomp)) || (has(self.sink) && has(self.sink.stomp))) || (has(self.auth) && (has(self.auth.basic) || has(self.auth.anonymous)))",message="a STOMP broker needs auth: set `auth: {basic: {secret: {name: ...}}}`, or say `auth: {anonymous: {}}` for one that asks for no password"
// +kubebuilder:validation:XValidation:rule="!(has(self.sink) && has(self.sink.mail)) || (has(self.auth) && (has(self.auth.basic) || has(self.auth.anonymous)))",message="a mail server needs auth: set `auth: {basic: {secret: {name: ...}}}`, or say `auth: {anonymous: {}}` for one that asks for no password"
// +kubebuilder:validation:XValidation:rule="!(has(self.sink) && has(self.sink.mail) && has(self.sink.mail.connection.encryption) && self.sink.mail.connection.encryption == 'Disabled') || !has(self.tls)",message="tls is for a connection that is encrypted: set sink.mail.connection.encryption to StartTLS or Implicit, or leave out tls"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.mqtt)) || (has(self.sink) && has(self.sink.mqtt))) || (has(self.auth) && (has(self.auth.basic) || has(self.auth.anonymous)))",message="an MQTT broker needs auth: set `auth: {basic: {secret: {name: ...}}}`, or say `auth: {anonymous: {}}` for one that asks for no password"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.mqtt)) || !has(self.replicas) || self.replicas <= 1",message="one pod has a session of MQTT: leave replicas out, or set 0 or 1; to share the work make several Connectors with the same mqtt.share"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.files)) || (has(self.sink) && has(self.sink.files))) || (!has(self.auth) && !has(self.tls))",message="files are on a volume, which asks for no credentials: leave out auth and tls"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.files)) || (has(self.sink) && has(self.sink.files))) || !has(self.replicas) || self.replicas <= 1",message="one pod works on a volume at a time: leave replicas out, or set 0 or 1"
// +kubebuilder:validation:XValidation:rule="!(has(self.service) && has(self.service.stub)) || (!has(self.auth) && !has(self.tls))",message="a stub talks to no system: leave out auth and tls"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.schedule)) || (!has(self.auth) && !has(self.tls))",message="a schedule talks to no system: leave out auth and tls"
// +kubebuilder:validation:XValidation:rule="!((has(self.source) && has(self.source.generator)) || (has(self.sink) && has(self.sink.log))) || (!has(self.auth) && !has(self.tls))",message="a generator and a log talk to no system: leave out auth and tls"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && has(self.source.generator)) || !has(self.replicas) || self.replicas <= 1",message="one pod counts: leave replicas out, or set 0 or 1; another generator makes more"
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && (has(self.source.http) || has(self.source.soap)) && has(self.tls)) || (has(self.tls.certificate) && !has(self.tls.serverName))",message="a listener with tls needs tls.certificate, and has no use for tls.serverName"
// +kubebuilder:validation:XValidation:rule="!has(self.auth) || !has(self.auth.hmac) || !has(self.source) || !has(self.source.http) || !has(self.source.http.maxBodySize) || quantity(string(self.source.http.maxBodySize)).compareTo(quantity('8Mi')) <= 0",message="a signature is known only when all of a body is stored: with a maxBodySize over 8Mi let callers log in with basic or bearer"
type ConnectorSpec struct {
	// integrationRef names the Integration of this namespace that the Connector belongs to; left out, it is the one called `default`.
	// It cannot change.
	// +optional
	// +default={"name": "default"}
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a Connector cannot move to another Integration: its messages would stay behind"
	IntegrationRef LocalRef `json:"integrationRef,omitempty,omitzero"`
	// source takes messages in from the system.
	// +optional
	Source *Source `json:"source,omitempty"`
	// sink delivers messages to the system.
	// +optional
	Sink *Sink `json:"sink,omitempty"`
	// service makes a function of the system callable.
	// +optional
	Service *Service `json:"service,omitempty"`
	// auth is how the Connector proves itself to the system or, where it listens, how callers must prove themselves.
	// +optional
	Auth *Auth `json:"auth,omitempty"`
	// tls of the connection to the system or, where the Connector listens, of the listener.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// replicas of the connector pod, from 0 to 64, by default 1. Leave it out of manifests where an autoscaler, or `kubectl scale`, sets
	// it: applying a manifest without it changes nothing.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=64
	Replicas *int32 `json:"replicas,omitempty"`
	// suspend stops the Connector: a source stops reading (a listener answers 503), what a sink is owed waits on the bus, and calls of a
	// service are answered 503.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
	// template of the connector pods.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`
}

// Source is where messages come from: what they are called and look like, and exactly one system.
// +kubebuilder:validation:XValidation:rule="[has(self.amqp10),has(self.custom),has(self.files),has(self.generator),has(self.http),has(self.httpPoll),has(self.kafka),has(self.mqtt),has(self.nats),has(self.postgres),has(self.rabbitmq),has(self.schedule),has(self.sftp),has(self.soap),has(self.stomp)].filter(x, x).size() == 1",message="set exactly one system, for example `source: {http: {}}`; kubectl explain connector.spec.source lists them"
// +kubebuilder:validation:XValidation:rule="!has(self.postgres) || !has(self.format) || self.format == 'JSON' || (has(self.postgres.notify) && self.format == 'Text')",message="rows and changes of a database are JSON, and notifications JSON or Text: leave format out, and convert in the Route with `steps: [{convert: ...}]`"
// +kubebuilder:validation:XValidation:rule="!has(self.generator) || ((!has(self.format) || self.format == 'JSON') && !(has(self.schema) && has(self.generator.size)))",message="what a generator makes is JSON, and as large as its schema makes it: leave format out, and set one of schema and generator.size"
// +kubebuilder:validation:XValidation:rule="!has(self.httpPoll) || !has(self.httpPoll.items) || !has(self.format) || self.format == 'JSON'",message="items of a list are JSON: leave format out"
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || !has(self.format) || self.format == 'JSON'",message="a schema needs format JSON: XML is checked to be well-formed, and Text and Binary have no schema"
// +kubebuilder:validation:XValidation:rule="!has(self.files) || !(has(self.files.records.csv) || has(self.files.records.fixedWidth)) || !has(self.format) || self.format == 'JSON'",message="rows become JSON objects: leave format out, or take in lines"
// +kubebuilder:validation:XValidation:rule="!has(self.sftp) || !(has(self.sftp.records.csv) || has(self.sftp.records.fixedWidth)) || !has(self.format) || self.format == 'JSON'",message="rows become JSON objects: leave format out, or take in lines"
// +kubebuilder:validation:XValidation:rule="!has(self.files) || !has(self.files.records.xml) || ((!has(self.format) || self.format in ['JSON', 'XML']) && !has(self.files.charset))",message="elements become JSON or XML, and a document says its character set itself: leave charset out, and write format JSON or XML"
// +kubebuilder:validation:XValidation:rule="!has(self.sftp) || !has(self.sftp.records.xml) || ((!has(self.format) || self.format in ['JSON', 'XML']) && !has(self.sftp.charset))",message="elements become JSON or XML, and a document says its character set itself: leave charset out, and write format JSON or XML"
// +kubebuilder:validation:XValidation:rule="!has(self.files) || !has(self.files.charset) || !has(self.format) || self.format in ['JSON', 'Text']",message="charset goes with formats JSON and Text: XML says its own, and Binary has none"
// +kubebuilder:validation:XValidation:rule="!has(self.sftp) || !has(self.sftp.charset) || !has(self.format) || self.format in ['JSON', 'Text']",message="charset goes with formats JSON and Text: XML says its own, and Binary has none"
// +kubebuilder:validation:XValidation:rule="!has(self.files) || !has(self.files.records.whole) || !has(self.files.records.whole.maxSize) || quantity(string(self.files.records.whole.maxSize)).compareTo(quantity('8Mi')) <= 0 || (has(self.format) && self.format == 'Binary' && !has(self.schema) && !has(self.partitionKey))",message="files over 8Mi are not looked into: with such a maxSize write `format: Binary` and leave out schema and partitionKey"
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || !has(self.http) || !has(self.http.exchange) || self.http.exchange != 'RequestReply'",message="requests that are answered are checked in the Route: leave schema out, and write `steps: [{validate: {jsonSchema: ...}}]` there"
// +kubebuilder:validation:XValidation:rule="!has(self.soap) || !has(self.soap.exchange) || self.soap.exchange != 'RequestReply' || (!has(self.schema) && !has(self.partitionKey) && (!has(self.history) || !self.history))",message="requests that are answered have no schema, partition key and history: leave those out, or set `soap: {exchange: OneWay}`"
// +kubebuilder:validation:XValidation:rule="!has(self.soap) || !has(self.format) || self.format in ['JSON', 'XML']",message="what is in an envelope is JSON (the default) or XML"
// +kubebuilder:validation:XValidation:rule="!has(self.partitionKey) || !has(self.http) || !has(self.http.exchange) || self.http.exchange != 'RequestReply'",message="requests that are answered have no partition key: leave partitionKey out, or set `http: {exchange: OneWay}`"
// +kubebuilder:validation:XValidation:rule="!has(self.http) || !has(self.http.maxBodySize) || quantity(string(self.http.maxBodySize)).compareTo(quantity('8Mi')) <= 0 || (has(self.format) && self.format == 'Binary' && !has(self.schema) && !has(self.partitionKey) && (!has(self.http.exchange) || self.http.exchange == 'OneWay'))",message="bodies over 8Mi are not looked into: with such a maxBodySize write `format: Binary` and leave out schema, partitionKey and exchange RequestReply"
// +kubebuilder:validation:XValidation:rule="!has(self.history) || !self.history || !has(self.http) || !has(self.http.exchange) || self.http.exchange != 'RequestReply'",message="requests that are answered carry no history: leave history out, or set `http: {exchange: OneWay}`"
type Source struct {
	// eventType of the messages, as CloudEvents calls it: what Routes select by, for example custody.arrest. Left out, it is the
	// Connector's name. A type that the caller gives counts only when it equals this one or begins with it and a dot; another is refused.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$')",message="eventType is parts of letters, digits, - and _ with dots between them, for example custody.arrest"
	EventType string `json:"eventType,omitempty"`
	// format of the body: JSON (the default), XML, Text (UTF-8) or Binary. A body that is not in this format is refused at the door.
	// +optional
	// +default="JSON"
	Format Format `json:"format,omitempty"`
	// partitionKey is a CEL expression that yields the key of each message, for example data.personId: Routes with `delivery.order: PerKey`
	// keep the order of messages with the same key. It takes the place of a partition key that the sender gives. A message for which it
	// yields nothing (the field is missing, or is no text, number or boolean) is taken all the same and has no key: it is in
	// order with no other. Left out, messages have the key that the system gives them, such as the CloudEvents extension `partitionkey`.
	// +optional
	PartitionKey Expression `json:"partitionKey,omitempty"`
	// schema that bodies must follow, a JSON Schema (see a Route's `validate: {jsonSchema: ...}`): what does not is refused at the door, over HTTP
	// with 422, the path and the rule that is broken. Only with format JSON.
	// +optional
	Schema *SchemaSource `json:"schema,omitempty"`
	// history makes messages carry where they have been and when, for finding out why a message went where it did: each source, and each
	// Route's destination that takes the message, adds its name to the header metip-history, which HTTP systems get as Metip-History and dead
	// letters keep. It costs about 60 bytes for each place. Left out, messages carry none; requests that are answered never do.
	// +optional
	History bool `json:"history,omitempty"`
	// custom takes in what a container of your own posts.
	// +optional
	Custom *CustomSource `json:"custom,omitempty"`
	// files takes in the files of a folder of a volume.
	// +optional
	Files *FilesSource `json:"files,omitempty"`
	// generator makes messages by itself, at a rate.
	// +optional
	Generator *GeneratorSource `json:"generator,omitempty"`
	// http listens for HTTP requests.
	// +optional
	HTTP *HTTPSource `json:"http,omitempty"`
	// httpPoll asks an HTTP system again and again for what is new.
	// +optional
	HTTPPoll *HTTPPollSource `json:"httpPoll,omitempty"`
	// kafka reads topics of a cluster that speaks Kafka's protocol.
	// +optional
	Kafka *KafkaSource `json:"kafka,omitempty"`
	// mqtt subscribes to topics of a broker that speaks MQTT 5 or 3.1.1, such as Mosquitto.
	// +optional
	MQTT *MQTTSource `json:"mqtt,omitempty"`
	// nats reads a stream of a NATS server of somebody else's.
	// +optional
	NATS *NATSSource `json:"nats,omitempty"`
	// rabbitmq reads a queue of a RabbitMQ server (AMQP 0.9.1).
	// +optional
	RabbitMQ *RabbitMQSource `json:"rabbitmq,omitempty"`
	// schedule makes messages by the clock.
	// +optional
	Schedule *ScheduleSource `json:"schedule,omitempty"`
	// sftp takes in the files of a folder of an SFTP server.
	// +optional
	SFTP *SFTPSource `json:"sftp,omitempty"`
	// soap listens for SOAP 1.1 and 1.2.
	// +optional
	SOAP *SOAPSource `json:"soap,omitempty"`
	// amqp10 reads a queue of a broker that speaks AMQP 1.0, such as Artemis or Azure Service Bus.
	// +optional
	AMQP10 *AMQP10Source `json:"amqp10,omitempty"`
	// stomp reads a queue of a broker that speaks STOMP, such as ActiveMQ.
	// +optional
	STOMP *STOMPSource `json:"stomp,omitempty"`
	// postgres makes messages of what happens in a PostgreSQL database.
	// +optional
	Postgres *PostgresSource `json:"postgres,omitempty"`
}

// Format of a message's body.
// +kubebuilder:validation:Enum=JSON;XML;Text;Binary
type Format string

// The formats.
const (
	FormatJSON   Format = "JSON"
	FormatXML    Format = "XML"
	FormatText   Format = "Text"
	FormatBinary Format = "Binary"
)

// Sink is where messages go: exactly one system.
// +kubebuilder:validation:XValidation:rule="[has(self.amqp10),has(self.custom),has(self.files),has(self.http),has(self.kafka),has(self.log),has(self.mail),has(self.mqtt),has(self.nats),has(self.postgres),has(self.rabbitmq),has(self.sftp),has(self.soap),has(self.stomp)].filter(x, x).size() == 1",message="set exactly one system, for example `sink: {http: {url: https://api.example/cases}}`; kubectl explain connector.spec.sink lists them"
type Sink struct {
	// custom posts each message to a container of your own.
	// +optional
	Custom *CustomSink `json:"custom,omitempty"`
	// files writes messages to files on a volume.
	// +optional
	Files *FilesSink `json:"files,omitempty"`
	// http makes an HTTP request of each message.
	// +optional
	HTTP *HTTPSink `json:"http,omitempty"`
	// kafka produces each message to a topic of a cluster that speaks Kafka's protocol.
	// +optional
	Kafka *KafkaSink `json:"kafka,omitempty"`
	// log writes a line for each message to the pod's log, and lets go of it.
	// +optional
	Log *LogSink `json:"log,omitempty"`
	// mail submits each message to a mail server, by SMTP.
	// +optional
	Mail *MailSink `json:"mail,omitempty"`
	// mqtt publishes each message to a topic of a broker that speaks MQTT 5 or 3.1.1.
	// +optional
	MQTT *MQTTSink `json:"mqtt,omitempty"`
	// nats publishes each message on a NATS server of somebody else's.
	// +optional
	NATS *NATSSink `json:"nats,omitempty"`
	// postgres writes each message to a table of a PostgreSQL database.
	// +optional
	Postgres *PostgresSink `json:"postgres,omitempty"`
	// rabbitmq publishes each message to an exchange of a RabbitMQ server (AMQP 0.9.1).
	// +optional
	RabbitMQ *RabbitMQSink `json:"rabbitmq,omitempty"`
	// sftp writes messages to files of an SFTP server.
	// +optional
	SFTP *SFTPSink `json:"sftp,omitempty"`
	// soap calls a SOAP system with each message.
	// +optional
	SOAP *SOAPSink `json:"soap,omitempty"`
	// amqp10 sends each message to a broker that speaks AMQP 1.0, such as Artemis or Azure Service Bus.
	// +optional
	AMQP10 *AMQP10Sink `json:"amqp10,omitempty"`
	// stomp sends each message to a broker that speaks STOMP, such as ActiveMQ.
	// +optional
	STOMP *STOMPSink `json:"stomp,omitempty"`
}

// Auth is exactly one way to authenticate.
// +kubebuilder:validation:XValidation:rule="[has(self.anonymous),has(self.basic),has(self.bearer),has(self.hmac),has(self.ssh)].filter(x, x).size() == 1",message="set exactly one of anonymous, basic, bearer, hmac and ssh, for example `auth: {bearer: {token: {name: my-secret, key: token}}}`"
type Auth struct {
	// anonymous means that nobody proves anything: open access to a listener, no credentials towards a system.
	// +optional
	Anonymous *AnonymousAuth `json:"anonymous,omitempty"`
	// basic is a user name and a password.
	// +optional
	Basic *BasicAuth `json:"basic,omitempty"`
	// bearer is a token in the Authorization header.
	// +optional
	Bearer *BearerAuth `json:"bearer,omitempty"`
	// hmac is a signature over the body, as webhooks of many products carry it.
	// +optional
	HMAC *HMACAuth `json:"hmac,omitempty"`
	// ssh is a user name and a private key, towards an SFTP server.
	// +optional
	SSH *SSHAuth `json:"ssh,omitempty"`
}

// AnonymousAuth has no fields.
type AnonymousAuth struct{}

// BasicAuth is a user name and a password.
type BasicAuth struct {
	// secret of type kubernetes.io/basic-auth, with the keys username and password.
	// +required
	Secret SecretName `json:"secret"`
}

// BearerAuth is a token.
type BearerAuth struct {
	// token is the Secret key that holds it. For a listener it may hold several tokens, one a line, so that a token can be
	// replaced without a gap.
	// +required
	Token SecretKey `json:"token"`
}

// HMACAuth is a signature: a header that holds `sha256=` and the HMAC-SHA-256 of the body in hexadecimal.
type HMACAuth struct {
	// key is the Secret key that holds the shared secret. For a listener it may hold several, one a line.
	// +required
	Key SecretKey `json:"key"`
	// header that carries the signature, by default X-Signature-256.
	// +optional
	// +default="X-Signature-256"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]+$`
	Header string `json:"header,omitempty"`
}

// SSHAuth is a user name and a private key.
type SSHAuth struct {
	// user that logs in.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]+$`
	User string `json:"user"`
	// secret of type kubernetes.io/ssh-auth, with the key ssh-privatekey: a private key without passphrase.
	// +required
	Secret SecretName `json:"secret"`
}

// ConnectorStatus is what was found.
type ConnectorStatus struct {
	// observedGeneration is the generation that the conditions speak of; -1 means not seen yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions that apply: Accepted, ResolvedRefs, Programmed, Deployed, Connected, Suspended and Ready; Reconciling and Stalled while true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// role is Source, Sink or Service.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Role string `json:"role,omitempty"`
	// type of the system, as its member is called: http, postgres, stub.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Type string `json:"type,omitempty"`
	// endpoint that the Connector talks to or listens on, without credentials.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Endpoint string `json:"endpoint,omitempty"`
	// attachedRoutes is the number of Routes that name this Connector.
	// +optional
	AttachedRoutes *int32 `json:"attachedRoutes,omitempty"`
	// replicas that run.
	// +optional
	Replicas int32 `json:"replicas"`
	// selector of the pods, for autoscalers.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Selector string `json:"selector,omitempty"`
	// configHash of the configuration that the pods should run.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ConfigHash string `json:"configHash,omitempty"`
	// credentialExpiry is when the broker credential of the pods expires; it is renewed well before.
	// +optional
	CredentialExpiry *metav1.Time `json:"credentialExpiry,omitempty"`
}
