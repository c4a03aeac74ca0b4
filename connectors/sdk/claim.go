package sdk

import (
	"context"
	"errors"
	"io"
)

// Claim is a body that is too large for the bus. It is stored beside the bus, and read piece by piece.
type Claim interface {
	// Size in bytes.
	Size() int64
	// Open reads the body from its beginning, until ctx ends. The reader holds one piece of it, and gives out the last only once all of them
	// together are what the source accepted: who gets fewer bytes than Size has got nothing. An error of Read other than io.EOF has the classes
	// of errors.go; a system returns it as the message's own outcome.
	Open(ctx context.Context) io.ReadCloser
}

// LargePublisher is what a Publisher of the engine is besides: it takes bodies of up to contract.MaxClaimSize, as claims.
type LargePublisher interface {
	// PublishLarge stores the body as it is read, a few pieces of contract.ClaimChunk at a time, and then the message, whose Data is empty. It
	// returns as Publish does; ErrBody is wrapped when body fails before its end, and then nothing was published. Calling again with the same
	// id stores the body again, and the message once.
	PublishLarge(ctx context.Context, m *Message, body io.Reader) error
}

// Streaming is what an Operation may say besides: that it delivers messages with a Claim.
type Streaming interface {
	Streams() bool
}

// ErrBody is wrapped by what LargePublisher returns when the body cannot be read to its end; the reader's own error is wrapped too.
var ErrBody = errors.New("the body did not arrive completely")

// ErrTooLarge is what looking into a body costs that is a Claim.
var ErrTooLarge = errors.New("the body is a claim check: it is larger than the bus carries, and is not read into memory")
