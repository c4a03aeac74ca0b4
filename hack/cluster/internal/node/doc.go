// Package node starts and stops the local cluster's one node: which servers there are and with which flags, in what
// order they start, when they count as up, and how everything is taken away again, also when only half of it is left.
package node
