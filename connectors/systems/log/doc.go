// Package log is the system "log": a sink that writes a line for each message to the pod's log, or nothing, and lets go of it. What it promises is in
// docs/connectors/log.md.
package log
