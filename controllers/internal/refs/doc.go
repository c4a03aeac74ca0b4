// Package refs follows references: which Broker an Integration uses and may use, what belongs to an Integration, which Routes name a
// Connector, and whether a Route may name it. All of it is read from the cache.
package refs
