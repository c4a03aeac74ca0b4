// Package process starts the cluster's servers, recognises them later and stops them. It never trusts a bare
// process id, since ids are used again: a recorded process is known by its start time and the boot it was started
// in, an unrecorded one by its binary and by the cluster's folder among its arguments.
package process
