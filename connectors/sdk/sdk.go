package sdk

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"

	"github.com/metip/metip/connectors/contract"
)

// System is one line of the catalogue: a system that connectors can join. At least one of Source, Sink and Service is set.
type System struct {
	// Name is the member's name in the API: http, postgres.
	Name string
	// Source makes a source from the options; an error means that the configuration can never work.
	Source func(Runtime, json.RawMessage) (Source, error)
	// Sink makes a sink from the options.
	Sink func(Runtime, json.RawMessage) (Sink, error)
	// Service makes a service from the options.
	Service func(Runtime, json.RawMessage) (Service, error)
}

// Runtime is what the engine gives to a system.
type Runtime struct {
	Config  *contract.Config
	Log     *slog.Logger
	Secrets Secrets
	// Dial connects to the system. It refuses link-local and metadata addresses, whatever a name resolves to.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Listen opens the pod's listener (contract.PortListener).
	Listen func(ctx context.Context) (net.Listener, error)
	// Gauge makes a metric of the pod's, of a value that is asked for when somebody looks; nil where nobody does. Names are in docs/metrics.md.
	Gauge func(name, help string, value func() float64)
	// Position of the source; nil where the configuration says that it keeps none.
	Position Position
	// Caller answers requests; nil where the configuration has no Calls.
	Caller Caller
}

// Secrets are the mounted files of contract.SystemDir, watched. A file that vanishes keeps its last good value.
type Secrets interface {
	// Get the value of a file, without a trailing line end. An error is an *UnavailableError with reason CredentialsMissing that names
	// the user's Secret and key.
	Get(file string) ([]byte, error)
	// Version grows with every change.
	Version() uint64
	// Changed is closed at the next change.
	Changed() <-chan struct{}
}

// Source takes messages in from a system.
type Source interface {
	// Run reads from the system until the context ends, and then returns once what it has taken in is settled (drain).
	// It calls Publisher for each message, and acknowledges to the system only after Publish has returned nil.
	// It reports the state of its connection through Reporter. An error ends the pod's process.
	Run(ctx context.Context, bus Publisher, state Reporter) error
}

// Publisher puts messages on the bus. It is safe for concurrent use.
type Publisher interface {
	// Publish checks each message first: its size, its type (the connector's own, or that and a dot and more) and its attributes;
	// ErrInvalid is wrapped otherwise, and then none of the call's messages is stored. That Data is in the source's format is for the
	// system to check, see CheckFormat.
	//
	// It returns when the broker has confirmed all messages as stored (or as already stored before). On an error, none or
	// some are stored, and repeating the call with the same ids stores none twice. errors.Is tells ErrFull, ErrInvalid and ErrSuspended apart;
	// every other error is the broker's being away.
	Publish(ctx context.Context, messages ...*Message) error
	// Ready says, at no cost, whether publishing can be expected to work: nil, ErrFull, ErrSuspended, or that the broker is away.
	Ready() error
}

// Position is how far a source has read, kept on the broker: for systems that do not remember that themselves. A source stores it after Publish
// has returned nil for all that it covers, so that a pod that dies reads something again, which stable ids make harmless, and skips nothing.
// One goroutine at a time may use it.
type Position interface {
	// Load the document that was stored last, by whichever pod; nil where there is none. It may be one of a moment ago: then Store says so.
	Load(ctx context.Context) ([]byte, error)
	// Store a document of at most contract.MaxPosition bytes in place of the one that Load or Store has seen last. ErrMoved is wrapped when another
	// pod has stored one since: Load it, and go on there. Any other error says that it may or may not be stored; Store it again. An *UnavailableError is one
	// that somebody has to see to.
	Store(ctx context.Context, document []byte) error
}

// Reporter takes the state of the connection to the system: nil while it works, an error (see Unavailable) while not.
type Reporter interface {
	System(err error)
}

// Sink delivers messages to a system.
type Sink interface {
	// Operation compiles an operation of a Route (nil: the Connector's own), once, before messages arrive. An error means that the
	// configuration can never work.
	Operation(raw json.RawMessage) (Operation, error)
	// Check tells whether the system can be reached and accepts our credentials, as far as that can be known without writing to it: an
	// *UnavailableError if not. The engine calls it at the start, while nothing flows, and after failures.
	Check(ctx context.Context) error
	// Close releases connections.
	Close() error
}

// Operation writes the messages of one destination.
type Operation interface {
	// Write delivers a batch, in any order unless documented otherwise, and answers each message by position: nil when the system has
	// confirmed it. Where the destination keeps an order, a batch holds one message of each key at most. It returns when ctx ends at the latest, and is called concurrently.
	Write(ctx context.Context, batch []*Delivery) []error
	// MaxBatch is the largest batch that Write takes, at least 1.
	MaxBatch() int
}

// Opaque is what an Operation may say besides: that it never calls Body, so that large messages take no more memory than they have bytes.
type Opaque interface {
	Opaque() bool
}
