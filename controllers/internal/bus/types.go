package bus

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
)

// Session is the operator's work on one broker. Implementations are safe for concurrent use; every call is bounded by its context
// and by ten seconds. ErrUnreachable is wrapped by what fails because the broker does not answer.
type Session interface {
	// Client is what a connector's configuration says of the broker.
	Client() contract.Broker

	// EnsureStreams makes or repairs the event and dead-letter streams of an Integration; changed says whether anything was written.
	// ErrNoStorage is wrapped when the servers cannot hold them.
	EnsureStreams(ctx context.Context, want Streams) (changed bool, err error)
	// StreamsState of an Integration. ErrNotFound when there are none.
	StreamsState(ctx context.Context, namespace, integration string) (StreamsState, error)
	// DeleteStreams of an Integration, with everything in them. Deleting what is not there is no error.
	DeleteStreams(ctx context.Context, namespace, integration string) error

	// DeleteTable of an Integration, with its entries. Deleting what is not there is no error.
	DeleteTable(ctx context.Context, namespace, integration, table string) error

	// EnsureDurable makes or repairs the durable consumer of a destination. A durable that belongs to another Route (by UID) is
	// replaced. Start and RouteUID never change for a durable that exists.
	EnsureDurable(ctx context.Context, want Durable) (changed bool, err error)
	// Durables of a stream, with their metadata. ErrNotFound when the stream is not there.
	Durables(ctx context.Context, stream string) ([]DurableState, error)
	// PurgeState removes what the steps of a destination remember.
	PurgeState(ctx context.Context, namespace, integration string, route types.UID, destination string) error
	// Positions are the UIDs of the Connectors that have a position in the state of an Integration; none when it keeps no state.
	Positions(ctx context.Context, namespace, integration string) ([]types.UID, error)
	// PurgePosition removes the position of a source. Purging what is not there is no error.
	PurgePosition(ctx context.Context, namespace, integration string, connector types.UID) error
	// DeleteDurable removes a durable consumer. Deleting what is not there is no error.
	DeleteDurable(ctx context.Context, stream, name string) error

	// IssueUser makes a user of account EDGE and returns its credentials (NATS .creds format).
	IssueUser(name string, permissions contract.Permissions, lifetime time.Duration) (User, error)
	// Revoke a user by its public key, on every server. It returns when the account's claims are stored; servers that are down learn
	// of it when they return.
	Revoke(ctx context.Context, publicKey string) error

	// Reports of all pods of a connector that were heard of within contract.ReportTimeout.
	Reports(namespace, connector string) []PodReport

	Replays
}

// Sessions finds the Session of a Broker.
type Sessions interface {
	// Session of a Broker; ErrUnreachable is wrapped while there is none.
	Session(broker types.NamespacedName) (Session, error)
	// Connectors is told of every connector whose reports changed in a way that matters to its status (not of mere repeats), or that
	// fell silent.
	Connectors() <-chan types.NamespacedName
	// Brokers is told of every Broker whose session was gained or lost.
	Brokers() <-chan types.NamespacedName
}

// Errors of a Session.
var (
	ErrUnreachable = errors.New("the broker does not answer")
	ErrNotFound    = errors.New("not found on the broker")
	ErrNoStorage   = errors.New("the broker's volumes cannot hold it")
)

// Streams of an Integration, as wanted.
type Streams struct {
	Namespace, Integration string
	UID                    types.UID
	// MaxBytes of events and of dead letters. StateMaxBytes of the state of steps and the positions of sources; 0 while nobody keeps any,
	// and what there is stays.
	MaxBytes, DeadMaxBytes, StateMaxBytes int64
	// ClaimsMaxBytes of bodies that are too large for the events; 0 while no source takes them, and what there is stays.
	ClaimsMaxBytes int64
	// Tables that are wanted; others stay until they are deleted.
	Tables []Table
	// Retention of delivered messages.
	Retention time.Duration
	// DeduplicationWindow of message ids.
	DeduplicationWindow time.Duration
}

// StreamsState of an Integration, as found.
type StreamsState struct {
	Bytes, MaxBytes         int64
	Messages                uint64
	DeadBytes, DeadMaxBytes int64
	DeadMessages            uint64
	// ClaimsMaxBytes is 0 where there are none.
	ClaimsBytes, ClaimsMaxBytes int64
	// Tables that there are, by name.
	Tables []TableState
	// Lagging servers whose copy is not current, as "stream on server".
	Lagging []string
	// NoLeader: a stream has no leader and takes nothing.
	NoLeader bool
}

// Durable consumer of a Route's destination, as wanted.
type Durable struct {
	Stream, Name string
	// Filters are the subjects, the mark's included.
	Filters []string
	// Start is the time of the first message; zero means the earliest that is stored.
	Start time.Time
	// RouteUID, Route and Destination go into the metadata.
	RouteUID           types.UID
	Route, Destination string
	// AckWait before an unacknowledged message is delivered again.
	AckWait time.Duration
	// Lanes of the destination, of which this is one: it serves one pod at a time, and holds no more than Window. 0 where no order is kept.
	Lanes, Window int
	// OnePod reads it at a time, the one that the broker has pinned.
	OnePod bool
	// Paused: nothing is delivered (suspend).
	Paused bool
}

// DurableState is a durable consumer, as found.
type DurableState struct {
	Name        string
	RouteUID    types.UID
	Route       string
	Destination string
	// Filters are its subjects, and AckFloor is the sequence up to which it has everything acknowledged.
	Filters  []string
	AckFloor uint64
	// Pending messages that were not delivered yet, but for the operator's own marks of the last hours, and AckPending that were and are not
	// acknowledged.
	Pending    uint64
	AckPending int
	Paused     bool
}

// User of account EDGE.
type User struct {
	PublicKey string
	// Creds in NATS .creds format.
	Creds   []byte
	Expires time.Time
}

// PodReport is a report with its pod's name and when it arrived.
type PodReport struct {
	Pod    string
	At     time.Time
	Report contract.Report
}
