// Command cluster builds and runs a real single-node Kubernetes from source on a bare Linux machine, for
// development and for the end-to-end tests: no registry, no container engine and no release download.
//
// What lives here: making the binaries (build), starting and stopping the node (up, down, status, env), putting
// images together and into the node (image, load), and proving that all of it works (selftest). What does not:
// anything about MetIP itself; the tool knows images only as tar files.
//
// It is a Go module of its own, because it requires all of Kubernetes and containerd. The Makefile calls it
// (hack/make/cluster.mk). State is kept in out/cluster, binaries in out/bin, images in out/images.
package main
