package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Route is a flow: from source Connectors, through a filter and steps, to sink Connectors. Each destination has its own
// place in the stream, so that a slow one never holds up another. With `call` it passes requests on to a service instead, and the
// answer back. All Connectors of a Route belong to one Integration.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=metip
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="From",type=string,JSONPath=`.status.from`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.status.to`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,priority=1,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",message="a Route's name is at most 52 of a-z, 0-9 and '-', begins with a letter and has no dots: it becomes part of the durable consumer's name",fieldPath=".metadata"
type Route struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard metadata of an object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec is what is wanted.
	// +required
	Spec RouteSpec `json:"spec"`
	// status is what was found.
	// +optional
	// +default={"observedGeneration": -1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}
	Status RouteStatus `json:"status,omitempty,omitzero"`
}

// RouteList is a list of Routes.
// +kubebuilder:object:root=true
type RouteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Route `json:"items"`
}

// RouteStart is where a new Route begins to read.
// +kubebuilder:validation:Enum=Creation;Earliest
type RouteStart string

// The starts.
const (
	RouteStartCreation RouteStart = "Creation"
	RouteStartEarliest RouteStart = "Earliest"
)

// RouteSpec is what is wanted of a Route: from, filter, steps, and either to or call.
// +kubebuilder:validation:XValidation:rule="has(self.to) != has(self.call)",message="set exactly one of to and call, for example `to: [{name: court, connector: court-db}]` or `call: {connector: case-lookup}`"
// +kubebuilder:validation:XValidation:rule="has(self.call) == has(oldSelf.call)",message="a Route cannot change between to and call: make another one"
// +kubebuilder:validation:XValidation:rule="!has(self.call) || (!has(self.delivery) && (!has(self.start) || self.start != 'Earliest'))",message="a call is answered or it is not: delivery and start belong to a Route with `to`; how long a call may take is call.timeout"
// +kubebuilder:validation:XValidation:rule="!has(self.call) || self.from.all(f, has(f.connector) && !has(f.types))",message="a call is made for requests: from names Connectors with `source: {http: {exchange: RequestReply}}`, without types and events; choose among requests with filter"
// +kubebuilder:validation:XValidation:rule="!has(self.to) || self.to.all(t, !has(t.connector) || self.from.all(f, !has(f.connector) || f.connector != t.connector))",message="a Route cannot deliver to its own source: name another Connector in to"
// +kubebuilder:validation:XValidation:rule="!has(self.to) || !has(oldSelf.to) || self.to.all(t, oldSelf.to.all(o, o.name != t.name || (t.?delivery.?order.hasValue() ? [string(t.delivery.order), string(t.delivery.?key.orValue(\"\")), string(t.delivery.?lanes.orValue(t.delivery.?key.hasValue() ? 1 : 4))] : self.?delivery.?order.hasValue() ? [string(self.delivery.order), string(self.delivery.?key.orValue(\"\")), string(self.delivery.?lanes.orValue(self.delivery.?key.hasValue() ? 1 : 4))] : ['None', \"\", '4']) == (o.?delivery.?order.hasValue() ? [string(o.delivery.order), string(o.delivery.?key.orValue(\"\")), string(o.delivery.?lanes.orValue(o.delivery.?key.hasValue() ? 1 : 4))] : oldSelf.?delivery.?order.hasValue() ? [string(oldSelf.delivery.order), string(oldSelf.delivery.?key.orValue(\"\")), string(oldSelf.delivery.?lanes.orValue(oldSelf.delivery.?key.hasValue() ? 1 : 4))] : ['None', \"\", '4'])))",message="order, lanes and key of a destination cannot change: what it still owes would come in the wrong order. Stop its sources, let it drain, delete the Route and make it anew (docs/ordering.md); or give the destination another name, which delivers again what the bus still holds of the Route"
// +kubebuilder:validation:XValidation:rule="!has(self.call) || !has(self.steps) || self.steps.all(s, !has(s.wireTap) && !has(s.recipientList) && !has(s.loadBalance))",message="wireTap, recipientList and loadBalance choose among destinations, and a call has none"
// +kubebuilder:validation:XValidation:rule="!has(self.to) || !has(self.steps) || self.steps.all(s, !has(s.wireTap) || self.to.exists(t, t.name == s.wireTap.to))",message="wireTap.to names one of the Route's destinations, for example `steps: [{wireTap: {to: audit}}]` with `to: [{name: audit, connector: audit-store}, ...]`"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.all(s, !has(s.wireTap) || self.steps.filter(o, has(o.wireTap) && o.wireTap.to == s.wireTap.to).size() == 1)",message="a destination is tapped once: to see the messages at two places, give the Connector two destinations"
// +kubebuilder:validation:XValidation:rule="!has(self.to) || !has(self.steps) || self.to.exists(t, self.steps.all(s, !has(s.wireTap) || s.wireTap.to != t.name))",message="a Route whose destinations are all wire taps delivers to nobody: the last of them needs no wireTap"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.map(s, has(s.wireTap) ? 1 : has(s.recipientList) || has(s.loadBalance) ? 2 : 0).filter(n, n > 0).isSorted()",message="wireTap stands before recipientList and loadBalance: after them a message is on its way to some destinations only"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.filter(s, has(s.loadBalance)).size() <= 1",message="a Route has one loadBalance at most"
// +kubebuilder:validation:XValidation:rule="!has(self.to) || !has(self.steps) || self.steps.all(s, !has(s.loadBalance) || (s.loadBalance.weights.all(n, self.to.exists(t, t.name == n)) && (!has(s.loadBalance.changes) || s.loadBalance.changes.all(c, c.weights.all(n, self.to.exists(t, t.name == n))))))",message="loadBalance gives weights to the Route's destinations, by their names, for example `loadBalance: {weights: {north: 3, south: 1}}`"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.all(s, !has(s.loadBalance) || self.steps.all(o, !has(o.wireTap) || (!(o.wireTap.to in s.loadBalance.weights) && (!has(s.loadBalance.changes) || s.loadBalance.changes.all(c, !(o.wireTap.to in c.weights))))))",message="a destination that is tapped has no weight: it gets every message that comes by its wireTap"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || !has(oldSelf.steps) || oldSelf.steps.all(o, !has(o.loadBalance) || self.steps.all(s, !has(s.loadBalance) || (has(s.loadBalance.key) == has(o.loadBalance.key) && (!has(o.loadBalance.key) || s.loadBalance.key == o.loadBalance.key) && (s.loadBalance.weights == o.loadBalance.weights ? !has(o.loadBalance.changes) || (has(s.loadBalance.changes) && o.loadBalance.changes.all(p, s.loadBalance.changes.exists(c, c == p))) : has(o.loadBalance.changes) && o.loadBalance.changes.exists(f, f.weights == s.loadBalance.weights && o.loadBalance.changes.all(p, p.from <= f.from || (has(s.loadBalance.changes) && s.loadBalance.changes.exists(c, c == p))))))))",message="the key, weights and changes of a loadBalance cannot be edited, for a message could go to nobody while pods restart: add to changes what shall hold from a time at least 10 minutes ahead, for example `changes: [{from: '2026-12-01T06:00:00Z', weights: {north: 1, south: 1}}]`"
type RouteSpec struct {
	// integrationRef names the Integration of this namespace whose messages the Route carries; left out, it is the one called
	// `default`. It cannot change.
	// +optional
	// +default={"name": "default"}
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a Route cannot move to another Integration: what it still owes would stay behind"
	IntegrationRef LocalRef `json:"integrationRef,omitempty,omitzero"`
	// from names what is read: messages of source Connectors, and events that other Routes of this Integration have made.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	From []RouteFrom `json:"from"`
	// start is where a new Route begins to read: at its Creation (the default), or at the Earliest message that the bus still holds.
	// It cannot change.
	// +optional
	// +default="Creation"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="start cannot change: make another Route that starts where you want it"
	Start RouteStart `json:"start,omitempty"`
	// filter is a CEL expression that yields a boolean; messages for which it is false are not delivered.
	// +optional
	Filter Expression `json:"filter,omitempty"`
	// steps run in order on each message that passes the filter.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Steps []Step `json:"steps,omitempty"`
	// to names the destinations; each gets every message that passes, independently of the others. Exactly one of to and call is set.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	To []Destination `json:"to,omitempty"`
	// call names the service that answers the requests of the sources, which have `exchange: RequestReply`. The filter chooses: where
	// several Routes read a source, the first by name whose filter lets a request pass serves it. The steps run on the request.
	// +optional
	Call *Call `json:"call,omitempty"`
	// delivery that the destinations inherit.
	// +optional
	Delivery *Delivery `json:"delivery,omitempty"`
	// suspend stops delivery; messages wait on the bus. Requests of a Route with `call` are answered 503.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
}

// Call of a service.
type Call struct {
	// connector of this namespace with a service.
	// +required
	Connector ObjectName `json:"connector"`
	// timeout of the whole exchange, the steps included, from 100ms to 5m, by default 10s. A caller that says how long it waits (the header
	// Metip-Timeout-Ms) shortens it, and so does the service's own timeout. After it the caller is answered 504.
	// +optional
	// +default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('5m')",message="timeout must be between 100ms and 5m, for example 10s"
	Timeout Duration `json:"timeout,omitempty"`
	// response is what is done with the answer of the service.
	// +optional
	Response *CallResponse `json:"response,omitempty"`
}

// CallResponse is what is done with an answer.
// +kubebuilder:validation:XValidation:rule="self.steps.all(s, !has(s.wireTap) && !has(s.recipientList) && !has(s.loadBalance))",message="wireTap, recipientList and loadBalance choose among destinations, and an answer has none"
type CallResponse struct {
	// steps run in order on each answer of the system, whatever its status, which they see as headers.status, with its headers as
	// headers["http-<name>"]. Problems that a hop of the bus answers with pass unchanged.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Steps []Step `json:"steps"`
}

// RouteFrom is where messages are read, and which: exactly one of a source Connector and the Integration's own events.
// +kubebuilder:validation:XValidation:rule="has(self.connector) != has(self.events)",message="set exactly one of connector and events, for example `from: [{connector: custody}]` or `from: [{events: {types: [police.arrest.v1]}}]`"
// +kubebuilder:validation:XValidation:rule="!has(self.types) || has(self.connector)",message="types belong to a connector: those of events are `events: {types: [...]}`"
type RouteFrom struct {
	// connector of this namespace with a source.
	// +optional
	Connector ObjectName `json:"connector,omitempty"`
	// types of event that are read, with `*` for one part and a last `>` for the rest, for example `custody.arrest.>`. Left out,
	// all types are.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([A-Za-z0-9_-]+|[*])([.]([A-Za-z0-9_-]+|[*]))*([.]>)?$')",message="a type is parts with dots between them, where * stands for one part and a last > for the rest, for example custody.arrest.>"
	Types []string `json:"types,omitempty"`
	// events that Routes of this Integration put on the bus (their `to: [{event: ...}]`).
	// +optional
	Events *RouteEvents `json:"events,omitempty"`
}

// RouteEvents selects events that Routes of the same Integration have made.
type RouteEvents struct {
	// types of event that are read, with `*` for one part and a last `>` for the rest, for example `police.arrest.v1` or `police.>`. Left
	// out, all types are.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([A-Za-z0-9_-]+|[*])([.]([A-Za-z0-9_-]+|[*]))*([.]>)?$')",message="a type is parts with dots between them, where * stands for one part and a last > for the rest, for example police.arrest.>"
	Types []string `json:"types,omitempty"`
}

// Destination is a sink Connector, or the bus itself, and what this destination alone wants.
// +kubebuilder:validation:XValidation:rule="[has(self.connector),has(self.event),has(self.table)].filter(x, x).size() == 1",message="set exactly one of connector, event and table, for example `to: [{name: court, connector: court-db}]`, `to: [{name: public, event: {type: police.arrest.v1}}]` or `to: [{name: known, table: {name: wards, key: data.code}}]`"
// +kubebuilder:validation:XValidation:rule="!has(self.operation) || has(self.connector)",message="an operation belongs to a connector: an event or a table has none"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.all(s, !has(s.wireTap) && !has(s.recipientList) && !has(s.loadBalance))",message="wireTap, recipientList and loadBalance choose among the Route's destinations: they stand in spec.steps, not in the steps of one destination"
type Destination struct {
	// name of the destination within the Route. It names the durable consumer, so that the Connector can be exchanged without
	// losing the place.
	// +required
	Name ObjectName `json:"name"`
	// connector of this namespace with a sink.
	// +optional
	Connector ObjectName `json:"connector,omitempty"`
	// event puts the message, as the steps left it, on the bus again: an event of a type of its own, which other Routes of this
	// Integration read with `from: [{events: {types: [...]}}]`. It keeps its id, partition key, marking and trace.
	// +optional
	Event *EventDestination `json:"event,omitempty"`
	// table of the Integration in which the message, as the steps left it, becomes the entry of its key.
	// +optional
	Table *TableDestination `json:"table,omitempty"`
	// filter for this destination alone, on the message as the Route's steps left it.
	// +optional
	Filter Expression `json:"filter,omitempty"`
	// steps for this destination alone, after the Route's.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Steps []Step `json:"steps,omitempty"`
	// operation replaces the one of the Connector, so that one Connector can serve many tables or paths.
	// +optional
	Operation *Operation `json:"operation,omitempty"`
	// delivery for this destination alone.
	// +optional
	Delivery *Delivery `json:"delivery,omitempty"`
}

// EventDestination is an event that is made of each message. The Integration's relay makes it: a pod that the operator runs while an
// Integration has a Route with such a destination.
type EventDestination struct {
	// type of the events, as CloudEvents calls it: what Routes select by, for example police.arrest.v1.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$')",message="type is parts of letters, digits, - and _ with dots between them, for example police.arrest.v1"
	Type string `json:"type"`
}

// Operation is exactly one, of the same system as the destination's Connector.
// +kubebuilder:validation:XValidation:rule="[has(self.amqp10),has(self.custom),has(self.files),has(self.http),has(self.kafka),has(self.mail),has(self.mqtt),has(self.nats),has(self.postgres),has(self.rabbitmq),has(self.sftp),has(self.soap),has(self.stomp)].filter(x, x).size() == 1",message="set exactly one system's operation, for example `operation: {http: {path: '/cases/{data.id}'}}`"
type Operation struct {
	// custom is what the container is told besides each message.
	// +optional
	Custom *CustomRequest `json:"custom,omitempty"`
	// files is how each message is written to a volume.
	// +optional
	Files *FilesWrite `json:"files,omitempty"`
	// http is the request that is made of each message.
	// +optional
	HTTP *HTTPRequest `json:"http,omitempty"`
	// kafka is how each message is produced.
	// +optional
	Kafka *KafkaProduce `json:"kafka,omitempty"`
	// mail is the mail that is made of each message.
	// +optional
	Mail *MailSend `json:"mail,omitempty"`
	// mqtt is how each message is published.
	// +optional
	MQTT *MQTTPublish `json:"mqtt,omitempty"`
	// nats is how each message is published on a NATS server.
	// +optional
	NATS *NATSPublish `json:"nats,omitempty"`
	// postgres is the table that each message is written to.
	// +optional
	Postgres *PostgresWrite `json:"postgres,omitempty"`
	// rabbitmq is how each message is published.
	// +optional
	RabbitMQ *RabbitMQPublish `json:"rabbitmq,omitempty"`
	// sftp is how each message is written to a server.
	// +optional
	SFTP *FilesFile `json:"sftp,omitempty"`
	// soap is the call that is made of each message.
	// +optional
	SOAP *SOAPCall `json:"soap,omitempty"`
	// amqp10 is how each message is sent.
	// +optional
	AMQP10 *AMQP10Send `json:"amqp10,omitempty"`
	// stomp is how each message is sent.
	// +optional
	STOMP *STOMPSend `json:"stomp,omitempty"`
}

// RouteStatus is what was found.
type RouteStatus struct {
	// observedGeneration is the generation that the conditions speak of; -1 means not seen yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions that apply: Accepted, ResolvedRefs, Programmed, Connected, Suspended and Ready; Reconciling and Stalled while true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// from names the source Connectors, and the types of events, for the printer.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	From string `json:"from,omitempty"`
	// to names the destination Connectors or the service that is called, and the types of events, for the printer.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	To string `json:"to,omitempty"`
	// destinations of the Route, each with its own conditions.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Destinations []DestinationStatus `json:"destinations,omitempty"`
}

// DestinationStatus is one destination.
type DestinationStatus struct {
	// name of the destination.
	// +required
	Name ObjectName `json:"name"`
	// conditions of the destination are Programmed (it has its durable consumer) and Connected (the pods deliver).
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
