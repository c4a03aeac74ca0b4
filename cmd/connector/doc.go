// Command connector is the program of a connector pod: flags and wiring only. What it does is in connectors/engine; the systems that it
// knows are in connectors/catalog.
package main
