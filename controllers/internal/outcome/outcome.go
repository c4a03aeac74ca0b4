package outcome

import (
	"errors"
	"fmt"
	"time"

	"github.com/metip/metip/api/v1alpha1"
)

// Class of an error.
type Class int

// The classes.
const (
	// Transient errors are tried again with back-off.
	Transient Class = iota
	// Waiting is no fault: something is not there yet and comes by itself.
	Waiting
	// Terminal errors stay until somebody acts.
	Terminal
)

// Error is an error with a class, and what the status should say of it.
type Error struct {
	Class Class
	// Condition that becomes False; empty means the one of the phase that failed.
	Condition string
	// Reason is one of the API's reasons.
	Reason string
	// Unknown: the condition becomes Unknown instead of False.
	Unknown bool
	// Hold: nothing is known yet, so that a status that speaks of the present generation stays as it is.
	Hold bool
	// After is when to look again; for Terminal, zero means never.
	After time.Duration
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// DefaultWait is how long Wait waits.
const DefaultWait = 5 * time.Second

// StalledRecheck is how often a Stalled object is looked at again.
const StalledRecheck = time.Minute

// Refuse is a terminal error: the object's own spec must change, which is seen at once.
func Refuse(reason, format string, a ...any) *Error {
	return &Error{Class: Terminal, Reason: reason, Err: fmt.Errorf(format, a...)}
}

// Stall is a terminal error whose remedy is elsewhere and not watched, so that it is looked for now and then.
func Stall(reason, format string, a ...any) *Error {
	return &Error{Class: Terminal, Reason: reason, After: StalledRecheck, Err: fmt.Errorf(format, a...)}
}

// Wait is for something that comes by itself.
func Wait(reason, format string, a ...any) *Error {
	return &Error{Class: Waiting, Reason: reason, After: DefaultWait, Err: fmt.Errorf(format, a...)}
}

// Hold waits without touching a status that speaks of the present generation: the operator has just started and cannot tell yet.
func Hold(after time.Duration, format string, a ...any) *Error {
	return &Error{Class: Waiting, Hold: true, Reason: v1alpha1.ReasonPending, Unknown: true, After: after, Err: fmt.Errorf(format, a...)}
}

// Retry is a transient error with a reason of its own.
func Retry(reason, format string, a ...any) *Error {
	return &Error{Class: Transient, Reason: reason, Err: fmt.Errorf(format, a...)}
}

// On says which condition the error is about.
func (e *Error) On(condition string) *Error { e.Condition = condition; return e }

// In says when to look again.
func (e *Error) In(after time.Duration) *Error { e.After = after; return e }

// AsUnknown makes the condition Unknown instead of False.
func (e *Error) AsUnknown() *Error { e.Unknown = true; return e }

// Of finds the class of an error, and the Error in its chain if there is one.
func Of(err error) (Class, *Error) {
	var e *Error
	if errors.As(err, &e) {
		return e.Class, e
	}
	return Transient, nil
}

// IsTerminal tells whether nothing changes until somebody acts.
func IsTerminal(err error) bool {
	class, _ := Of(err)
	return err != nil && class == Terminal
}
