// Package broker reconciles Brokers: the servers of a managed one with their keys, certificates, configuration and rolls, and the operator's
// session with either sort.
//
// observe.go has all reads; desired*.go and rollout.go are pure; status.go turns a scope into conditions.
package broker
