package contract

import (
	"encoding/json"
	"time"
)

// ConfigVersion that this package reads and writes. A pod refuses another.
const ConfigVersion = 1

// Config is what a connector pod runs: compiled by the operator, with every inherited value filled in, mounted as an
// immutable ConfigMap. It holds no secret.
type Config struct {
	Version int `json:"version"`
	// Hash of everything else here; the pod repeats it in its reports.
	Hash      string    `json:"hash"`
	Connector Connector `json:"connector"`
	Broker    Broker    `json:"broker"`
	// Exactly one of Source, Sink and Service.
	Source  *Source  `json:"source,omitempty"`
	Sink    *Sink    `json:"sink,omitempty"`
	Service *Service `json:"service,omitempty"`
	Auth    Auth     `json:"auth"`
	// Volume that is mounted for the system; nil for none.
	Volume *Volume `json:"volume,omitempty"`
	TLS    *TLS    `json:"tls,omitempty"`
}

// Connector is who the pod is.
type Connector struct {
	Namespace   string    `json:"namespace"`
	Name        string    `json:"name"`
	UID         string    `json:"uid"`
	Generation  int64     `json:"generation"`
	Created     time.Time `json:"created"`
	Integration string    `json:"integration"`
	Marking     string    `json:"marking,omitempty"`
}

// Broker is how to reach the broker.
type Broker struct {
	// URLs of the servers.
	URLs []string `json:"urls"`
	// CA is the PEM bundle that the servers' certificates chain to; empty where the URLs are not TLS.
	CA string `json:"ca,omitempty"`
	// Replicas of each stream, and whether the disk is flushed before every acknowledgement: they choose how to publish.
	Replicas int  `json:"replicas"`
	Fsync    bool `json:"fsync"`
}

// Auth is how to authenticate; the values are in files under SystemDir.
type Auth struct {
	Kind AuthKind `json:"kind"`
	// Header of an HMAC signature.
	Header string `json:"header,omitempty"`
	// User of an SSH key.
	User string `json:"user,omitempty"`
	// SecretName and Keys name the user's Secret, for error messages.
	SecretName string   `json:"secretName,omitempty"`
	Keys       []string `json:"keys,omitempty"`
}

// AuthKind is the member of spec.auth.
type AuthKind string

// The kinds of Auth.
const (
	AuthNone      AuthKind = ""
	AuthAnonymous AuthKind = "anonymous"
	AuthBasic     AuthKind = "basic"
	AuthBearer    AuthKind = "bearer"
	AuthHMAC      AuthKind = "hmac"
	AuthSSH       AuthKind = "ssh"
)

// TLS says which of the files FileCA, FileTLSCert and FileTLSKey are there to be used.
type TLS struct {
	CA          bool   `json:"ca,omitempty"`
	Certificate bool   `json:"certificate,omitempty"`
	ServerName  string `json:"serverName,omitempty"`
	// CAFrom and CertificateFrom name where the files come from, for error messages: "secret court-tls key ca.crt".
	CAFrom          string `json:"caFrom,omitempty"`
	CertificateFrom string `json:"certificateFrom,omitempty"`
}

// Volume is where a volume of the user's is mounted.
type Volume struct {
	Dir string `json:"dir"`
	// Claim names the PersistentVolumeClaim, for messages.
	Claim string `json:"claim"`
}

// System is the system that a connector joins: its name in the catalogue and its options, which are the API's union member as JSON.
type System struct {
	Type    string          `json:"type"`
	Options json.RawMessage `json:"options"`
}

// Source configures a source connector.
type Source struct {
	System System `json:"system"`
	// EventType of the messages, never empty.
	EventType string `json:"eventType"`
	// Format is JSON, XML, Text or Binary.
	Format string `json:"format"`
	// PartitionKey is a CEL expression that yields the key of each message; empty means what the system says, or none.
	PartitionKey string `json:"partitionKey,omitempty"`
	// Schema that every body must follow; nil for none.
	Schema *Schema `json:"schema,omitempty"`
	// History: messages carry where they have been (HeaderHistory).
	History bool `json:"history,omitempty"`
	// Position: the source keeps its position on the broker.
	Position bool `json:"position,omitempty"`
	// Suspended: stop reading; a listener answers 503.
	Suspended bool `json:"suspended,omitempty"`
	// DeduplicationWindow of the stream.
	DeduplicationWindow Duration `json:"deduplicationWindow"`
	// Calls of the Routes that answer this source's requests, sorted by Route; only where the exchange is RequestReply. The first whose
	// filter lets a request pass serves it.
	Calls []Call `json:"calls,omitempty"`
}

// Sink configures a sink connector.
type Sink struct {
	System System `json:"system"`
	// Routes that end here, one for each Route and destination.
	Routes []Route `json:"routes,omitempty"`
}

// Route is one Route's destination, compiled.
type Route struct {
	Name        string `json:"name"`
	UID         string `json:"uid"`
	Generation  int64  `json:"generation"`
	Destination string `json:"destination"`
	Integration string `json:"integration"`
	Stream      string `json:"stream"`
	// Durable is the destination's DurableName: its durable consumer or, with Delivery.Lanes, what those are named after.
	Durable string `json:"durable"`
	// Sources are the Connectors that the Route reads from, sorted: their messages may carry claim checks.
	Sources []string `json:"sources,omitempty"`
	// Steps are the Route's filter and steps, then the destination's, in order.
	Steps []Step `json:"steps,omitempty"`
	// Operation replaces the one in the system's options; JSON of the API's operation member. Empty means the Connector's own.
	Operation json.RawMessage `json:"operation,omitempty"`
	Delivery  Delivery        `json:"delivery"`
}

// Delivery with every inherited value filled in.
type Delivery struct {
	Timeout Duration `json:"timeout"`
	// Attempts before the dead letters; 0 means for ever.
	Attempts   int32    `json:"attempts"`
	Backoff    Duration `json:"backoff"`
	MaxBackoff Duration `json:"maxBackoff"`
	// OnTimeout is what an attempt means that is not answered within Timeout; empty means OnTimeoutWait.
	OnTimeout string `json:"onTimeout,omitempty"`
	// Expiry is how long after the source took it in a message is still worth delivering; 0 means for ever.
	Expiry Duration `json:"expiry,omitempty"`
	// Order that is kept, and by how many lanes; both are empty where none is.
	Order Order `json:"order,omitempty"`
	Lanes int   `json:"lanes,omitempty"`
	// Key is a CEL expression that yields the key whose order is kept; empty means the message's partition key.
	Key string `json:"key,omitempty"`
}

// What an attempt without an answer means (Delivery.OnTimeout).
const (
	// OnTimeoutWait: the system is down. The message loses no attempt.
	OnTimeoutWait = "Wait"
	// OnTimeoutRetry: the message is slow. It loses an attempt, and no other is held up.
	OnTimeoutRetry = "Retry"
	// OnTimeoutDeadLetter: to the dead letters (DeadReasonTimedOut), for nobody knows whether the system did the work.
	OnTimeoutDeadLetter = "DeadLetter"
)

// Duration is a time.Duration that is written as text ("30s").
type Duration time.Duration

// MarshalJSON writes the duration as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}
