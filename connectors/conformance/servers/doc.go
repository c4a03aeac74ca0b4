// Package servers runs real servers for tests: a distribution's own programs, on loopback, each with its data in a folder of the test's,
// so that they can be crashed, halted, frozen and started again as an outage does. It installs nothing: hack/deps.sh does.
//
// What a system's server needs (its configuration, its users, a client to look into it) is in a package of its own that uses this one, as
// rabbitmqtest does.
package servers
