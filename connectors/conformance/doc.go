// Package conformance is the behaviour suite that every system passes: what the engine relies on and the documentation promises, tried
// on the real system. A system brings a harness, which is the system under test and the ways to break it; the behaviours are the
// same for all. Sinks are in sink.go, sources in source.go; the harnesses are in the tests.
//
// A new system adds a harness here, and tests of what only it has in its own package.
package conformance
