// Package bus tests the operator's session on real servers: what the traps of a broker do, one by one.
package bus
