// Package catalog lists the systems that connectors can join. It is the only place that knows them all: the connector binary and the
// conformance suite ask it. The operator does not import it, for it needs names and options only, which are in the API.
package catalog
