package v1alpha1

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// HTTPSource listens for HTTP requests and makes a message of each. It takes JSON, any other content type, and CloudEvents in
// structured, binary and batch mode, and answers 202 when the broker has the message on disk. With `exchange: RequestReply` it passes requests on
// to a service instead, and the service's answer back. The operator makes a Service of the Connector's name, port 80, or 443 with tls.
type HTTPSource struct {
	// path that is accepted, exactly, by default /. Others get 404. With `exchange: RequestReply` it is the beginning of the paths that are
	// accepted: what follows it is the path that the service is called with.
	// +optional
	// +default="/"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^/[A-Za-z0-9/._~-]*$`
	Path string `json:"path,omitempty"`
	// exchange is OneWay (the default: a request becomes a message on the bus, answered 202) or RequestReply (a request of any method is
	// answered by the service that a Route with `call` names; nothing is stored). Routes must agree: `to` reads OneWay sources, `call`
	// RequestReply ones.
	// +optional
	// +default="OneWay"
	Exchange Exchange `json:"exchange,omitempty"`
	// maxBodySize above which a request gets 413, by default 1Mi and at most 256Mi. A batch counts as one body. A body over 8Mi is a claim check:
	// it is stored beside the messages (`retention.claimsSize` of the Integration), and no pod holds it in memory, so that a limit over 8Mi needs
	// `format: Binary` and `exchange: OneWay`, and neither schema, partitionKey nor auth.hmac; see docs/claim-checks.md.
	// +optional
	// +default="1Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('256Mi')) <= 0 && quantity(string(self)).compareTo(quantity('1')) >= 0",message="maxBodySize must be between 1 and 256Mi, for example 4Mi"
	MaxBodySize *resource.Quantity `json:"maxBodySize,omitempty"`
	// allowFrom limits who can reach the listener on the network (a NetworkPolicy's peers). Left out, every pod and address can.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	AllowFrom []networkingv1.NetworkPolicyPeer `json:"allowFrom,omitempty"`
}

// Exchange is how a source's requests are answered.
// +kubebuilder:validation:Enum=OneWay;RequestReply
type Exchange string

// The exchanges.
const (
	ExchangeOneWay       Exchange = "OneWay"
	ExchangeRequestReply Exchange = "RequestReply"
)

// ScheduleSource makes a message by the clock. Several replicas make one message a tick.
type ScheduleSource struct {
	// cron expression of five fields (minute, hour, day of month, month, day of week), or @hourly, @daily, @weekly, @monthly,
	// @every 90s.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron"`
	// timeZone by its IANA name, for example Europe/London; by default Etc/UTC.
	// +optional
	// +default="Etc/UTC"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
	// body of the message, in the source's format. Left out, a JSON message says `{"scheduled": <time of the tick>}`; every message
	// carries the tick's time as its `time` all the same.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Body string `json:"body,omitempty"`
	// catchUp is how far back a starting pod makes up for ticks that fell while no pod ran, at most the Integration's
	// deduplicationWindow (which keeps a tick from being made twice) and never before the Connector existed. Left out, it is 1m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="catchUp must be at most 24h, for example 10m"
	CatchUp *Duration `json:"catchUp,omitempty"`
}

// HTTPSink makes an HTTP request of each message. A 2xx answer means delivered.
type HTTPSink struct {
	// url of the system: scheme, host, and a path prefix. It takes no expressions: those go into request.path.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/{}@?#[:space:][:cntrl:]]+(/[^{}?#[:space:][:cntrl:]]*)?$')",message="url must be http:// or https://, a host and at most a path, without user:password@, query or {..}: expressions go into request.path"
	URL string `json:"url"`
	// request that is made of each message. A Route's destination may replace it.
	// +optional
	Request *HTTPRequest `json:"request,omitempty"`
}

// HTTPMethod of a request.
// +kubebuilder:validation:Enum=POST;PUT;PATCH;DELETE
type HTTPMethod string

// HTTPRequest says how a message becomes a request.
type HTTPRequest struct {
	// method of the request: POST (the default), PUT, PATCH or DELETE.
	// +optional
	// +default="POST"
	Method HTTPMethod `json:"method,omitempty"`
	// path that is added to the url, with query if need be, for example `/cases/{data.id}?force=true`.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/') || self.startsWith('?')",message="path must begin with / or ?"
	Path Template `json:"path,omitempty"`
	// headers of the request, by name. Content-Type is the message's own unless it is named here; Idempotency-Key names the destination
	// and the message.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9-]{1,128}$') && !(k.lowerAscii() in ['host', 'content-length', 'transfer-encoding', 'connection', 'upgrade', 'te', 'trailer', 'authorization', 'proxy-authorization', 'idempotency-key']))",message="header names are letters, digits and '-'; Host, Content-Length, Transfer-Encoding, Connection, Upgrade, TE, Trailer, Authorization, Proxy-Authorization and Idempotency-Key are set by the connector (credentials go into spec.auth)"
	Headers map[string]Template `json:"headers,omitempty"`
	// retryOn lists further answers that may pass (404 where the case is made later, say). By default 401, 403, 407, 408, 425, 429 and 5xx are
	// tried again; every other answer but 2xx sends the message to the dead letters.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=300
	// +kubebuilder:validation:items:Maximum=599
	RetryOn []int32 `json:"retryOn,omitempty"`
	// rejectOn lists answers that by default are tried again and here mean that the message will never be accepted.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=300
	// +kubebuilder:validation:items:Maximum=599
	RejectOn []int32 `json:"rejectOn,omitempty"`
}

// Encryption of a connection.
// +kubebuilder:validation:Enum=Required;Disabled
type Encryption string

// The encryptions.
const (
	EncryptionRequired Encryption = "Required"
	EncryptionDisabled Encryption = "Disabled"
)

// PostgresConnection says where the database is.
type PostgresConnection struct {
	// host of the server: a name or an address, for example db.court.example.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9.:_-]+$`
	Host string `json:"host"`
	// port of the server, by default 5432.
	// +optional
	// +default=5432
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// database name, for example court.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Database string `json:"database"`
	// encryption is Required (the default; the server's certificate is checked against spec.tls.ca) or Disabled.
	// +optional
	// +default="Required"
	Encryption Encryption `json:"encryption,omitempty"`
}

// PostgresSink writes each message to a table, exactly once: the message id is recorded in the table metip_received
// in the same transaction, so that a message delivered again changes nothing.
type PostgresSink struct {
	// connection to the database.
	// +required
	Connection PostgresConnection `json:"connection"`
	// write says which table a message goes to, and how. A Route's destination may replace it.
	// +required
	Write PostgresWrite `json:"write"`
}

// ColumnName is the name of a column.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
type ColumnName string

// PostgresWrite writes a row for each message, or calls a function.
// +kubebuilder:validation:XValidation:rule="has(self.table) != has(self.function)",message="set exactly one of table and function"
// +kubebuilder:validation:XValidation:rule="has(self.table) ? !has(self.arguments) : (!has(self.keyColumns) && !has(self.columns))",message="a table has keyColumns and columns, and a function has arguments"
// +kubebuilder:validation:XValidation:rule="!has(self.columns) || !has(self.keyColumns) || self.keyColumns.all(k, k in self.columns)",message="every key column must be among columns"
type PostgresWrite struct {
	// table as schema.table, or table alone for the schema public, for example custody.arrests. It has to exist.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=127
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^.\"[:cntrl:]]+([.][^.\"[:cntrl:]]+)?$')",message="table is schema.table, or table alone, without quotes"
	Table string `json:"table,omitempty"`
	// function that is called with each message instead, as schema.function, or function alone for the schema public, for example custody.add_arrest. What it
	// returns is not looked at. It has to exist, under a name of its own, and its arguments need names.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=127
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^.\"[:cntrl:]]+([.][^.\"[:cntrl:]]+)?$')",message="function is schema.function, or function alone, without quotes"
	Function string `json:"function,omitempty"`
	// arguments of the function and the CEL expression of each one's value, for example `{id: data.arrestId}`. Left out, the arguments are the
	// members of the (JSON) body, under their own names.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=100
	Arguments map[string]Expression `json:"arguments,omitempty"`
	// keyColumns identify a row, which is updated where it is there; the table needs a primary key or unique constraint over exactly these columns. Left
	// out, each message makes a row.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	KeyColumns []ColumnName `json:"keyColumns,omitempty"`
	// columns and the CEL expression of each one's value, for example `{id: data.arrestId, made: time}`. Left out, the columns are
	// the members of the (JSON) body, under their own names.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=128
	Columns map[string]Expression `json:"columns,omitempty"`
}
