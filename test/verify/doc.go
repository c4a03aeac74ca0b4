// Package verify checks what has to be true of the repository itself: generated files are current, go.mod files tidy, the code formatted and
// clean of lint, each package documented, each target and each link known. `make verify` runs it.
package verify
