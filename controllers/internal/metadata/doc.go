// Package metadata holds the labels and annotations of what the operator makes, and the names of the children.
package metadata
