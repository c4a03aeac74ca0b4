// Package reconcile is the one life of every kind: get, finalize, run the phases, compute the status, patch it once, record what turned, and
// map the error's class to a result. A controller says what its phases are and how a status looks; nothing of the above is written twice.
package reconcile
