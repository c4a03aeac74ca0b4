// Package api tests the custom resource definitions on a real API server (envtest), without the operator: what is accepted, what
// is refused and with which words, what is defaulted, what cannot change, how it prints.
//
// The manifests that must be accepted are those of config/samples; those that must be refused are in invalid, a file each, whose first
// line says what the API server has to answer.
package api
