// Package compile turns objects into what the data plane reads (connectors/contract): the effective delivery of a destination, a Route's destination as
// a sink's pods run it, and the configuration of a Connector with its hash. It is pure; the Connector's and the Route's
// controller both call it, and compare what they get.
package compile
