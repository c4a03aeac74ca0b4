// Package outcome holds the three classes of error that a reconcile can end with, and says what each leads to. Phases return
// them; only internal/reconcile turns them into a result, so that nobody else decides to retry, wait or stall.
//
//   - Terminal: nothing changes until somebody acts. Stalled, no retry (or a slow look, see Stalled).
//   - Waiting: something comes by itself. Fixed delay, no error in the log.
//   - everything else is transient: tried again with back-off, logged.
//
// The classes survive wrapping (errors.As).
package outcome
