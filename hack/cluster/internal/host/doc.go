// Package host is what the local cluster needs of the machine outside its own folder and processes: Debian packages,
// the pods' bridge, packet filter tables, kernel settings, control groups and mounts. Whatever it makes it can find
// again and remove, without having been the process that made it.
package host
