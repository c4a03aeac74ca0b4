// Package children holds what the pods of every kind have in common: the restricted security context, which also runs under an arbitrary user
// id, the user's pod template, and how they spread.
package children
