package sdk

import (
	"errors"
	"fmt"
	"time"
)

// A sink answers each message with nil (delivered) or an error. What the engine does depends on its class:
//
//   - Permanent: the system will never accept this message. To the dead letters at once.
//   - Unavailable: the system as a whole does not work (down, refuses our credentials, a table is missing). The destination stops
//     and is tried again with back-off; messages wait and lose no attempt; the connector's status says why.
//   - anything else is transient and the message's own: it is tried again with back-off until its attempts are used up.

// PermanentError is of class Permanent.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// Permanent makes an error of class Permanent.
func Permanent(err error) error { return &PermanentError{err} }

// Permanentf is Permanent(fmt.Errorf(...)).
func Permanentf(format string, a ...any) error { return &PermanentError{fmt.Errorf(format, a...)} }

// IsPermanent tells the class.
func IsPermanent(err error) bool {
	var e *PermanentError
	return errors.As(err, &e)
}

// UnavailableError is of class Unavailable. Reason is one of contract's reasons of a State.
type UnavailableError struct {
	Reason string
	Err    error
}

func (e *UnavailableError) Error() string { return e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

// Unavailable makes an error of class Unavailable. The error's text reaches the status: it names the endpoint and holds no secret.
func Unavailable(reason string, err error) error { return &UnavailableError{reason, err} }

// RetryAfterError asks for a pause of at least After before the next attempt.
type RetryAfterError struct {
	Err   error
	After time.Duration
}

func (e *RetryAfterError) Error() string { return e.Err.Error() }
func (e *RetryAfterError) Unwrap() error { return e.Err }

// ErrFull is what Publisher returns when the bus is full and pushes back. Nothing was stored.
var ErrFull = errors.New("the bus is full")

// ErrInvalid is wrapped by what Publisher returns for a message that can never be stored: too large, a foreign type, an
// invalid attribute. Nothing was stored.
var ErrInvalid = errors.New("invalid message")

// ErrSchema is wrapped by what Publisher returns for a message whose body does not follow the source's schema; it wraps ErrInvalid. The error
// names path and rule, and can be shown to the sender.
var ErrSchema = fmt.Errorf("%w: the body does not follow the schema", ErrInvalid)

// ErrMoved is wrapped by what Position.Store returns when another pod has stored a position since.
var ErrMoved = errors.New("another pod has moved the source's position")

// ErrSuspended is what Publisher returns while the source is suspended or the pod drains.
var ErrSuspended = errors.New("the source is suspended")
