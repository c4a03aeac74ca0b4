// Package cluster is how clients of message brokers connect: to one of several servers, with what the Secrets hold at that moment, over TLS where
// the servers ask for it. What a connection says then is its protocol's own.
package cluster
