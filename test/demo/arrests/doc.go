// Package arrests holds the records that the demo and the end-to-end suite send: a custody system's arrests, made up by Generate
// and kept in test/demo/data. It also says, independently of the Route's own expressions, what must become of each record.
//
// People, places, forces, courts and numbers are fictional.
package arrests
