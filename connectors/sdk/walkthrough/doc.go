// Package walkthrough is the system of docs/write-a-connector.md: a registry that speaks a protocol of lines. It is no part of the catalogue; it
// shows a source and a sink on the SDK alone, and its test shows how the behaviour suite tries them.
package walkthrough
