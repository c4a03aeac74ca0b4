// Package http is the system "http": a source that listens for HTTP requests and makes messages of them, and a sink that makes a
// request of each message. What both promise is in docs/connectors/http.md.
//
// Source side: source.go (the listener's life), handler.go (one request, from credentials to answer), cloudevents.go and format.go
// (untrusted input), listenauth.go, problem.go. Sink side: sink.go (connections), operation.go (one request), status.go
// (what an answer means). attributes.go is the header encoding of CloudEvents, for both.
package http
