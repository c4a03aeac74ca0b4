package contract

import "time"

// Headers of a message on the bus: CloudEvents 1.0 in NATS binary mode (https://github.com/cloudevents/spec, NATS protocol binding),
// the W3C trace context, and MetIP's own. The body stays the source's own bytes.
const (
	HeaderSpecVersion  = "ce-specversion"
	HeaderID           = "ce-id"
	HeaderSource       = "ce-source"
	HeaderType         = "ce-type"
	HeaderTime         = "ce-time"
	HeaderSubject      = "ce-subject"
	HeaderContentType  = "content-type"
	HeaderMarking      = "ce-marking"
	HeaderPartitionKey = "ce-partitionkey"
	HeaderTraceParent  = "traceparent"
	HeaderTraceState   = "tracestate"

	// ExtensionExpiryTime is the CloudEvents extension that says until when a message is worth delivering (RFC 3339).
	ExtensionExpiryTime = "expirytime"

	// HeaderExtensionPrefix begins every CloudEvents attribute.
	HeaderExtensionPrefix = "ce-"
	// HeaderAccepted is when the source accepted the message (RFC 3339 with nanoseconds): where latency is counted from.
	HeaderAccepted = "metip-accepted"
	// HeaderFormat is the source's declared format (JSON, XML, Text, Binary).
	HeaderFormat = "metip-format"

	// SpecVersion of CloudEvents.
	SpecVersion = "1.0"
)

// Headers that a dead letter carries besides those of the original, whose body it keeps byte for byte.
const (
	HeaderDeadRoute       = "metip-dead-route"
	HeaderDeadDestination = "metip-dead-destination"
	HeaderDeadConnector   = "metip-dead-connector"
	HeaderDeadStep        = "metip-dead-step"
	HeaderDeadReason      = "metip-dead-reason"
	HeaderDeadError       = "metip-dead-error"
	HeaderDeadAttempts    = "metip-dead-attempts"
	HeaderDeadTime        = "metip-dead-time"
	HeaderDeadStream      = "metip-dead-stream"
	HeaderDeadSequence    = "metip-dead-sequence"
	HeaderDeadSubject     = "metip-dead-subject"
	// HeaderDeadRedrives is how often the message had been taken out of the dead letters before; missing where it never was.
	HeaderDeadRedrives = "metip-dead-redrives"
	// HeaderDeadMessageID is the message id that the original had on the bus (Nats-Msg-Id), which idempotence keys derive from.
	HeaderDeadMessageID = "metip-dead-message-id"

	// HeaderDeadPrefix begins all of them.
	HeaderDeadPrefix = "metip-dead-"
)

// Reasons of dead letters (HeaderDeadReason).
const (
	// DeadReasonStepFailed: a filter or step failed on this message.
	DeadReasonStepFailed = "StepFailed"
	// DeadReasonMalformed: the body or the envelope is not what the message says it is.
	DeadReasonMalformed = "Malformed"
	// DeadReasonRejected: the system says that it will never accept this message.
	DeadReasonRejected = "Rejected"
	// DeadReasonAttemptsExhausted: the last attempt failed as the ones before it.
	DeadReasonAttemptsExhausted = "AttemptsExhausted"
	// DeadReasonExpired: it was too old to be delivered, by the Route's delivery.expiry or by its own expirytime.
	DeadReasonExpired = "Expired"
	// DeadReasonTimedOut: the system did not answer in time, and the Route's retry.onTimeout is DeadLetter. Whether the work was done
	// is not known.
	DeadReasonTimedOut = "TimedOut"
)

// SourceURI is the ce-source of a connector's messages.
func SourceURI(namespace, connector string) string { return "/metip/" + namespace + "/" + connector }

// Limits of a message.
const (
	// MaxMessageSize of a body, in bytes; the broker's max_payload is larger by MaxHeaderSize.
	MaxMessageSize = 8 << 20
	// MaxHeaderSize of all headers together, in bytes.
	MaxHeaderSize = 64 << 10
)

// ReportInterval is how often a pod reports when nothing changes; ReportTimeout is the silence after which the operator
// says Unknown.
const (
	ReportInterval = 5 * time.Second
	ReportTimeout  = 20 * time.Second
)
