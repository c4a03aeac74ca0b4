// Package conditions sets the conditions of a status: with the generation that they speak of, without touching what did not change,
// and with the progress of a pass over its phases turned into one condition each.
package conditions
