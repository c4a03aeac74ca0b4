package contract

import "time"

// Report is what a pod says of itself on StatusSubject: on every change, and every ReportInterval. At most MaxReportSize bytes as JSON.
type Report struct {
	// ConfigHash of the configuration that runs.
	ConfigHash string `json:"configHash"`
	// Started is when the pod's process started; Sequence counts its reports.
	Started  time.Time `json:"started"`
	Sequence uint64    `json:"sequence"`
	// Draining: the pod is shutting down; it speaks for nobody any more.
	Draining bool `json:"draining,omitempty"`
	// System is the connection to the system.
	System State `json:"system"`
	// Bus is what the broker answers: publishing or consuming works.
	Bus State `json:"bus"`
	// Routes that have a problem of their own, at most MaxReportedRoutes; the others deliver.
	Routes []RouteState `json:"routes,omitempty"`
	// MoreRoutes that have a problem and are not listed.
	MoreRoutes int `json:"moreRoutes,omitempty"`
}

// State of a connection.
type State struct {
	// OK: it works, as far as the pod knows.
	OK bool `json:"ok"`
	// Reason is one of the reasons of the API's condition Connected, empty while OK.
	Reason string `json:"reason,omitempty"`
	// Message names the endpoint, the error and the remedy, never a secret.
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`
}

// RouteState is the state of one Route's destination.
type RouteState struct {
	Route       string `json:"route"`
	Destination string `json:"destination"`
	State
}

// Limits of a report.
const (
	MaxReportSize     = 8 << 10
	MaxReportedRoutes = 16
	MaxReportMessage  = 300
)

// Reasons of a State. They are the API's reasons for the condition Connected, word for word (a test compares them).
const (
	ReasonPending              = "Pending"
	ReasonConnectionFailed     = "ConnectionFailed"
	ReasonCredentialsMissing   = "CredentialsMissing"
	ReasonAuthenticationFailed = "AuthenticationFailed"
	ReasonCertificateInvalid   = "CertificateInvalid"
	ReasonSystemError          = "SystemError"
	ReasonStreamFull           = "StreamFull"
	ReasonDeadLetterFull       = "DeadLetterFull"
	ReasonTableFull            = "TableFull"
	ReasonBrokerUnreachable    = "BrokerUnreachable"
	ReasonSuspended            = "Suspended"
)
