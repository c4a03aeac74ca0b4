// Conditionsdoc writes docs/reference/conditions.md from the constants of api/v1alpha1/conditions.go and their comments, so that what
// the operator can say and what is documented are the same list.
package main
