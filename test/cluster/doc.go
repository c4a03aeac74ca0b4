// Package cluster is how the demo and the end-to-end suite use a real cluster: the local one that hack/cluster makes, kind, or a user's
// own. It installs the operator, reaches Services from the host, runs kubectl, waits, and on the local cluster finds and kills
// processes. It makes and stops no cluster; the Makefile does.
package cluster
