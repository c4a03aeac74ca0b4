// Package courtdb is the court's database of the demo and the end-to-end suite: a real PostgreSQL server on this machine, with TLS by
// an authority of its own, and the databases and accounts on it. It knows the table that config/samples/demo writes to.
package courtdb
