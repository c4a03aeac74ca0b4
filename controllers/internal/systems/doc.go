// Package systems is what the control plane has to know of each system beside its schema: one entry a system, in catalog.go. It says what the
// union member is called, where the endpoint is, which expressions the options hold, and how an operation replaces them.
package systems
