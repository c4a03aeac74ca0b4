package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// failuresToOpen in a row, with no answer between them, open the circuit though the system can be connected to.
	failuresToOpen = 5
	// slowCall is how long a call must at least have been given for its time-out to count against the system rather than the caller.
	slowCall = 10 * time.Second
	// lastTrial is the longest time between two calls that are let through to a system that accepts connections and answers nothing.
	lastTrial = 30 * time.Second
)

// verdict of a call on the system.
type verdict struct {
	kind verdictKind
	err  error
}

type verdictKind int

const (
	// verdictNone: the call says nothing about the system.
	verdictNone verdictKind = iota
	verdictWorks
	// verdictRefused: the system does not accept the credentials. Other calls go on.
	verdictRefused
	// verdictDown: the system could not be reached, or broke off. verdictSlow: it took the request and did not answer.
	verdictDown
	verdictSlow
)

// verdict of a call that ended with err.
func (r *serviceRunner) verdict(ctx context.Context, err error, begun time.Time) verdict {
	var call *sdk.CallError
	var down *sdk.UnavailableError
	cause := context.Cause(ctx)
	switch {
	case err == nil:
		return verdict{kind: verdictWorks}
	case errors.As(err, &call):
		return verdict{kind: verdictNone}
	case errors.As(err, &down) && down.Reason == contract.ReasonAuthenticationFailed:
		return verdict{verdictRefused, err}
	case errors.Is(cause, context.DeadlineExceeded):
		if took := time.Since(begun); took < r.timeout/2 && took < slowCall {
			return verdict{kind: verdictNone}
		}
		return verdict{verdictSlow, sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("the system takes calls and does not answer them in time: %w", err))}
	case cause != nil:
		return verdict{kind: verdictNone}
	case errors.As(err, &down):
		return verdict{verdictDown, err}
	default:
		return verdict{verdictDown, sdk.Unavailable(contract.ReasonConnectionFailed, err)}
	}
}

// breaker is the circuit of a service. While it is open every call is refused at once. A prober asks the system by Check; when that
// works the circuit closes, or, where the system took connections all the time, one call at a time is let through until one is answered.
type breaker struct {
	runner *serviceRunner

	mu sync.Mutex
	// problem while the circuit is open, or the credentials are refused.
	problem
	isOpen bool
	// reachable: it opened although the system could be connected to.
	reachable bool
	// half: open, and one call may be tried; trying: it is under way; tried: when the last one began.
	half, trying bool
	tried        time.Time
	// probing: the prober runs; inquiring: a call broke, and the system is being asked whether that means anything.
	probing, inquiring bool
	// failures in a row.
	failures int
	// wait before the next probe.
	wait time.Duration
	// answered is when the system last answered.
	answered time.Time
}

// admit a call. trial says that the circuit hangs on it.
func (b *breaker) admit() (trial, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.isOpen:
		return false, true
	case b.half && !b.trying:
		b.trying, b.tried = true, time.Now()
		return true, true
	default:
		return false, false
	}
}

// opened for the metric: 1 while the circuit is open.
func (b *breaker) opened() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isOpen {
		return 1
	}
	return 0
}

// done with a call.
func (b *breaker) done(trial bool, v verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if trial {
		b.trying = false
	}
	switch v.kind {
	case verdictNone:
	case verdictWorks:
		b.answered, b.failures = time.Now(), 0
		if b.isOpen || b.err != nil {
			b.close()
		}
	case verdictRefused:
		b.close()
		b.answered = time.Now()
		b.report(v.err)
	case verdictDown, verdictSlow:
		b.failed(trial, v)
	}
}

// failed call. The caller holds the lock.
func (b *breaker) failed(trial bool, v verdict) {
	b.failures++
	switch {
	case b.isOpen:
		if trial {
			b.open(v.err, true)
		}
	case b.failures >= failuresToOpen:
		b.open(v.err, true)
	case v.kind == verdictDown && !b.inquiring:
		// One call may break for reasons of its own: the system itself is asked.
		b.inquiring = true
		b.runner.running.Go(b.inquire)
	}
}

// inquire whether a call that broke means that the system is down.
func (b *breaker) inquire() {
	err := b.runner.check(b.runner.work)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inquiring = false
	if err != nil && b.runner.work.Err() == nil {
		b.open(err, false)
	}
}

// open the circuit, or keep it open for another reason. The caller holds the lock.
func (b *breaker) open(err error, reachable bool) {
	if !b.isOpen {
		b.wait = firstProbe
	}
	b.isOpen, b.half, b.reachable = true, false, reachable
	b.report(err)
	if !b.probing {
		b.probing = true
		b.runner.running.Go(b.probe)
	}
}

// close the circuit. The caller holds the lock.
func (b *breaker) close() {
	if b.isOpen {
		b.runner.log.Info("the system is available again")
	}
	b.isOpen, b.half, b.failures = false, false, 0
	b.report(nil)
}

// report the problem. The caller holds the lock.
func (b *breaker) report(err error) {
	if b.set(reasonOf(err), err) && err != nil {
		b.runner.log.Warn("the system is unavailable", "error", err)
	}
	b.runner.system.System(err)
}

// probe until the system can be called again.
func (b *breaker) probe() {
	for {
		secrets := b.runner.secrets.Changed()
		timer := time.NewTimer(b.nextWait())
		select {
		case <-timer.C:
		case <-secrets:
		case <-b.runner.stopping:
			timer.Stop()
			return
		}
		timer.Stop()
		err := b.runner.check(b.runner.work)
		if b.runner.work.Err() != nil || b.probed(err) {
			return
		}
	}
}

func (b *breaker) nextWait() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait, longest := b.wait, lastProbe
	if b.reachable {
		longest = lastTrial
	}
	b.wait = min(2*wait, longest)
	return wait
}

// probed says whether probing is over.
func (b *breaker) probed(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.isOpen:
	case err != nil:
		b.reachable = false
		b.report(err)
		return false
	case b.reachable:
		// It could be connected to all the time: a call has to tell.
		b.half, b.tried = true, time.Now()
	default:
		b.close()
	}
	b.probing = false
	return true
}
