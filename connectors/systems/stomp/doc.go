// Package stomp joins message brokers that speak STOMP 1.1 or 1.2, such as ActiveMQ: queues that JMS programs write to and read from.
//
// The protocol is spoken here rather than by a library: go-stomp, the one that is kept, holds a lock while it waits for a receipt, so that no
// second message is under way, and takes in frames and headers of any size.
package stomp
