package engine

import (
	"context"
	"time"
)

// untried is how long after the last trial a system that can be connected to, and that nobody calls, is no longer reported.
const untried = time.Minute

// check the system.
func (r *serviceRunner) check(ctx context.Context) error {
	return askSystem(ctx, r.log, r.service.Check)
}

// watchSystem checks the system now, while nothing is called, and when the Secrets change, until the context ends. While the circuit is
// open its prober does that.
func (r *serviceRunner) watchSystem(ctx context.Context) {
	for ctx.Err() == nil {
		changed := r.secrets.Changed()
		if r.breaker.due() {
			if err := r.check(ctx); ctx.Err() == nil {
				r.breaker.checked(err)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
			r.breaker.secretsChanged()
		case <-time.After(checkEvery):
		}
	}
}

// due says whether the system has to be asked how it is.
func (b *breaker) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.probing && (!b.isOpen || b.half) && time.Since(b.answered) > checkEvery
}

// checked: what Check said while nothing was called.
func (b *breaker) checked(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err != nil:
		b.open(err, b.isOpen && b.reachable)
	case b.err == nil || b.half && time.Since(b.tried) > untried:
		// That credentials were refused only a call disproves.
		b.report(nil)
	}
}

// secretsChanged: what was refused need not be any more.
func (b *breaker) secretsChanged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered = time.Time{}
	if b.err != nil && !b.isOpen {
		b.report(nil)
	}
}
