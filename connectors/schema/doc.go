// Package schema compiles JSON Schemas and judges documents by them. The data plane judges; the webhook and the controllers compile with the
// same code (package steps), so that what is accepted runs.
//
// The compiler is santhosh-tekuri/jsonschema's: drafts, references, anchors, the check against the metaschema. No reference leads out of the
// schema itself and the metaschemas, which are built in. What judges is this package's own, for a document comes from anybody: it stops at the
// first rule that is broken, counts its steps and looks at the clock, never computes with numbers longer than they are written, and names path
// and rule but never a value.
package schema
