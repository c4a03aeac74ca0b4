// Package fakes stands in for the engine where a system is tested by itself: Secrets that a test sets, a Publisher that records, a
// Reporter that tests wait on, and a Runtime made of them.
package fakes
