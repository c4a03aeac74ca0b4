package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
)

// Service is a function that a system offers, called over the bus by request and reply: exactly one system, and how it is called. Its pods
// share the calls. Routes call it (`call: {connector: ...}`), and so may every program with a broker user that is allowed to.
// +kubebuilder:validation:XValidation:rule="[has(self.custom),has(self.http),has(self.nats),has(self.postgres),has(self.rabbitmq),has(self.soap),has(self.stub)].filter(x, x).size() == 1",message="set exactly one system, for example `service: {http: {url: https://api.example}}`; kubectl explain connector.spec.service lists them"
type Service struct {
	// timeout of a call whose caller sets none, and the longest that any call may take, from 100ms to 5m, by default 10s. A call that is
	// not answered by then is answered 504, and the request to the system is broken off.
	// +optional
	// +default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('5m')",message="timeout must be between 100ms and 5m, for example 10s"
	Timeout Duration `json:"timeout,omitempty"`
	// maxConcurrent calls of one pod, from 1 to 4096, by default 64: what the system can bear, divided by the replicas. A further call goes to
	// another pod and, when all of them are busy, is answered 503.
	// +optional
	// +default=64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	MaxConcurrent *int32 `json:"maxConcurrent,omitempty"`
	// cache keeps answers in each pod. Left out, every call reaches the system.
	// +optional
	Cache *ServiceCache `json:"cache,omitempty"`
	// openAPI document that calls are held to. A request that does not follow it is refused (400, 404, 405, 415) before it reaches the
	// system, and an answer that does not before it reaches the caller (502). Left out, nothing is asked of them.
	// +optional
	OpenAPI *OpenAPI `json:"openAPI,omitempty"`
	// custom passes calls on to a container of your own.
	// +optional
	Custom *CustomService `json:"custom,omitempty"`
	// http passes calls on to an HTTP system: method, path, query, headers and body, and the answer back.
	// +optional
	HTTP *HTTPService `json:"http,omitempty"`
	// nats asks a subject of a NATS server of somebody else's.
	// +optional
	NATS *NATSService `json:"nats,omitempty"`
	// postgres runs a query of a PostgreSQL database.
	// +optional
	Postgres *PostgresService `json:"postgres,omitempty"`
	// rabbitmq asks over an exchange of a RabbitMQ server (AMQP 0.9.1), and waits for the reply.
	// +optional
	RabbitMQ *RabbitMQService `json:"rabbitmq,omitempty"`
	// soap calls a SOAP system: JSON or XML goes into the envelope, and comes back out of it.
	// +optional
	SOAP *SOAPService `json:"soap,omitempty"`
	// stub answers from declared examples, for a flow that is tested before its back end exists or while it is being moved.
	// +optional
	Stub *StubService `json:"stub,omitempty"`
}

// ServiceCache keeps answers with a status of 2xx, by method, path, query, body, and the headers Content-Type, Accept and Accept-Language. What
// the system says in Cache-Control, Vary and Set-Cookie makes it keep less, never more. Callers are not told apart: leave the cache
// out where the answer depends on who asks.
type ServiceCache struct {
	// ttl is the longest that an answer is kept, from 100ms to 24h, for example 30s.
	// +required
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="ttl must be between 100ms and 24h, for example 30s"
	TTL Duration `json:"ttl"`
	// size of all answers that one pod keeps, from 64Ki to 64Mi, by default 8Mi. Those that were not asked for longest go first.
	// +optional
	// +default="8Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('64Mi')) <= 0",message="size must be between 64Ki and 64Mi, for example 8Mi"
	Size *resource.Quantity `json:"size,omitempty"`
	// methods whose answers are kept. Left out, they are GET and HEAD. A POST that only asks may be named here; one that changes
	// something must not: it would not reach the system.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:Enum=GET;HEAD;POST;PUT;PATCH;DELETE;OPTIONS;QUERY
	Methods []string `json:"methods,omitempty"`
}

// OpenAPI says where the document is.
type OpenAPI struct {
	// inline is the document itself, of OpenAPI 3.0 or 3.1, in JSON or YAML, at most 131072 characters, for example the text of
	// openapi.yaml. Its paths are those of the calls, below the service's own address: servers, security, callbacks and links do not count. References
	// stay within the document, those of schemas within components/schemas.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=131072
	Inline string `json:"inline"`
}

// HTTPService passes calls on to an HTTP system. An answer of the system is the answer of the call whatever its status. The Connector's own
// credentials (`auth`) go with each request; the caller's do not.
type HTTPService struct {
	// url of the system: scheme, host, and a path prefix that the path of each request is added to.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/{}@?#[:space:][:cntrl:]]+(/[^{}?#[:space:][:cntrl:]]*)?$')",message="url must be http:// or https://, a host and at most a path, without user:password@, query or {..}"
	URL string `json:"url"`
	// healthPath is asked for by GET, with the Connector's credentials, to know whether the system works: 2xx and 3xx say so. It is added to
	// the host, not to the url's path, for example /healthz. Left out, connecting is enough.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^/[^#[:space:][:cntrl:]]*$')",message="healthPath must begin with / and hold neither spaces nor #, for example /healthz"
	HealthPath string `json:"healthPath,omitempty"`
	// headers that every request gets, instead of what the caller sent under these names. They take no expressions: those go into the
	// Route's steps.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9-]{1,128}$') && !(k.lowerAscii() in ['host', 'authorization', 'content-length', 'transfer-encoding', 'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'proxy-authentication-info', 'te', 'trailer', 'upgrade', 'http2-settings', 'alt-svc', 'expect']))",message="header names are letters, digits and '-'; Host, Content-Length, Authorization and what concerns one connection only are set by the connector (credentials go into spec.auth)"
	Headers map[string]HeaderValue `json:"headers,omitempty"`
}

// HeaderValue is sent as it is: at most 2048 characters, none of them a control character.
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:Pattern=`^[^[:cntrl:]]*$`
type HeaderValue string

// PostgresAnswer is what a call of a query is answered with.
// +kubebuilder:validation:Enum=Rows;Row
type PostgresAnswer string

// PostgresService runs a query with what a call says, in a transaction that changes nothing, and answers with its rows as JSON: an object each, whose members are
// the columns.
type PostgresService struct {
	// connection says where the database is.
	// +required
	Connection PostgresConnection `json:"connection"`
	// query that is run: one SELECT, with $1, $2 and so on for the parameters, for example `SELECT id, name FROM custody.persons WHERE id = $1`.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	// +kubebuilder:validation:XValidation:rule="!self.trim().endsWith(';')",message="the query is one statement, without ; at its end"
	Query string `json:"query"`
	// parameters of the query: CEL expressions over the request, for example `headers["query-id"]` for the parameter `id` of its query, or `data.personId`. They
	// are sent beside the query and never become part of its text.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Parameters []Expression `json:"parameters,omitempty"`
	// answer is Rows (the default: a list of the rows, which may be empty) or Row (the first row itself; a query without one is answered 404, and one with
	// several 502).
	// +optional
	// +default="Rows"
	Answer PostgresAnswer `json:"answer,omitempty"`
	// maxRows of an answer, from 1 to 10000, by default 1000; a query that has more is answered 502.
	// +optional
	// +default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxRows *int32 `json:"maxRows,omitempty"`
}

// NATSService asks whoever answers requests on a subject of a NATS server, which is not the bus: the body of the call is the body of the request.
// Method, path and query are its headers Metip-Method, Metip-Path and Metip-Query. An answer with Nats-Service-Error-Code has that status, every
// other 200.
type NATSService struct {
	NATSConnection `json:",inline"`
	// subject that is asked, with `{expression}` over the request, for example `persons.{headers["query-id"]}`. A value that is inserted is
	// one token: one with a dot, a space, * or > is answered 400.
	// +required
	// +kubebuilder:validation:MinLength=1
	Subject Template `json:"subject"`
	// contentType of answers that do not say theirs (the header Content-Type), by default application/json.
	// +optional
	// +default="application/json"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+([ ]*;.*)?$') && self.matches('^[[:print:]]*$')",message="contentType is type/subtype, for example text/plain; charset=utf-8"
	ContentType string `json:"contentType,omitempty"`
}

// StubService answers from declared examples. It talks to nobody, and keeps nothing.
type StubService struct {
	// examples that calls are answered from: the first one whose `when` holds. A call that none fits is answered 404.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Examples []StubExample `json:"examples"`
	// latency of every answer whose example sets none. Left out, answers come at once.
	// +optional
	Latency *Latency `json:"latency,omitempty"`
	// faults that are put in, each on its share of all calls. Together they are at most 100 percent.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.map(f, f.percent).sum() <= 100",message="the percentages of faults add up to more than 100"
	Faults []StubFault `json:"faults,omitempty"`
}

// StubExample is one answer.
// +kubebuilder:validation:XValidation:rule="!has(self.body) || !has(self.jq)",message="set at most one of body and jq: an answer has one body"
type StubExample struct {
	// name of the example, for errors and whoever reads the manifest; left out, it is the example's number.
	// +optional
	Name ObjectName `json:"name,omitempty"`
	// when is a CEL expression that yields a boolean, over the request as steps see it: `data` (its body), headers.method, headers.path,
	// headers.query, headers["query-<parameter>"], headers["http-<name>"]. A request that lacks what it asks for does not fit. Left
	// out, every call fits.
	// +optional
	When Expression `json:"when,omitempty"`
	// status of the answer in HTTP's numbers, from 200 to 599, by default 200.
	// +optional
	// +default=200
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	Status *int32 `json:"status,omitempty"`
	// headers of the answer: templates over the request. Content-Type, which takes no expressions, is application/json unless it is named here.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9-]{1,128}$') && !(k.lowerAscii() in ['content-length', 'transfer-encoding', 'connection', 'upgrade', 'te', 'trailer']))",message="header names are letters, digits and '-'; Content-Length and what concerns one connection only are set by the connector"
	Headers map[string]Template `json:"headers,omitempty"`
	// body of the answer, byte for byte.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Body string `json:"body,omitempty"`
	// jq program that makes the body of the request's (`null` where it has none), with `$message.headers`, as a transform has.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	JQ string `json:"jq,omitempty"`
	// latency of this answer.
	// +optional
	Latency *Latency `json:"latency,omitempty"`
}

// Latency of an answer, evenly distributed between two ends.
// +kubebuilder:validation:XValidation:rule="!has(self.max) || duration(self.min) <= duration(self.max)",message="latency.min must not exceed latency.max"
type Latency struct {
	// min is the shortest, at most 5m, for example 20ms.
	// +required
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('5m')",message="min must be at most 5m, for example 20ms"
	Min Duration `json:"min"`
	// max is the longest, at most 5m. Left out, it is min.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('5m')",message="max must be at most 5m, for example 200ms"
	Max *Duration `json:"max,omitempty"`
}

// StubFault is what goes wrong with a share of the calls.
// +kubebuilder:validation:XValidation:rule="has(self.status) != (has(self.drop) && self.drop)",message="set exactly one of status and drop, for example `{percent: 5, status: 503}` or `{percent: 1, drop: true}`"
type StubFault struct {
	// percent of all calls, from 1 to 100.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Percent int32 `json:"percent"`
	// status of the answer in HTTP's numbers, from 200 to 599, for example 503.
	// +optional
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	Status *int32 `json:"status,omitempty"`
	// drop the call, so that the caller's time runs out.
	// +optional
	Drop *bool `json:"drop,omitempty"`
}
