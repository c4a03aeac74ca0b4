// Package custom is the system "custom": somebody's own container, beside the engine in the same pod, that knows a system which MetIP does not. The two
// talk HTTP over the pod's loopback, by the contract in docs/connectors/custom.md; the engine keeps every promise, and the container has no
// credentials of the broker.
//
// container.go is what the container is asked and what its answers mean; source.go, sink.go and service.go are the three roles.
package custom
