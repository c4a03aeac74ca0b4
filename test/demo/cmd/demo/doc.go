// Command demo shows the bus at work: see the usage text. `make demo` and `make demo-down` call it, and the image metip-demo runs it
// as the court's case API.
package main
