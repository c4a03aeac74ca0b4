// Package webhook refuses, when a manifest is applied, what the schema cannot: expressions that do not compile, with their position. It is a
// convenience: the controllers repeat the check and say the same in Accepted, so that the API server may go on without it
// (failurePolicy Ignore). Its certificate, which serves the metrics too, is made and rotated here, and kept in a Secret of the operator's namespace.
package webhook
