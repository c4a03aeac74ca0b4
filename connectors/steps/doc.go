// Package steps compiles and runs what a Route says about a message: CEL expressions (filters, values), templates and jq programs.
// The data plane runs them; the webhook and the controllers compile with the same code, so that what is accepted runs.
//
// Expressions see the message as: data (the body: what sdk.Message.Body gives; of XML and Text the text itself), type, id, source,
// subject (strings), time (a timestamp) and headers (a map of strings). CEL's standard functions and its string extension are there,
// regular expressions are RE2. Numbers of JSON are int where they fit 64 bits, else uint or double. Every expression is bounded: in
// length, nesting, cost, and, for jq, in time and memory.
package steps
