// Package signals passes on what the broker tells the operator, a changed report or a session that was gained or lost, to every
// controller that wants to know.
package signals
