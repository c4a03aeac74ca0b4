// Package generator is the system "generator": a source that makes messages by itself, at a rate, for trying out what is behind it. Message n is the
// same whenever it is made, so that how many there are, and which, can be counted on. What it promises is in docs/connectors/generator.md.
package generator
