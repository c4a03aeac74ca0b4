// Package flow sends arrests and accounts for them: a poster that does not give up until the bus has taken a record, and a ledger that
// compares, id by id and destination by destination, what arrived with what had to arrive.
package flow
