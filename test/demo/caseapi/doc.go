// Package caseapi is the court's case API of the demo: an HTTP server that keeps cases in memory, counts what it is asked, and can be
// told to misbehave; and its client. The demo and the end-to-end suite run it as a pod.
package caseapi
