// Package conformance is the behaviour suite that every system passes: what the engine relies on and the documentation promises, tried
// on the real system. A system brings a harness, which is the system under test and the ways to break it; the behaviours are the
// same for all.
//
//   - Sinks runs sinks (SinkHarness).
//   - PullSources runs sources of systems that keep their messages until they are acknowledged: queues, tables, folders (PullHarness).
//   - Sources runs those that are given messages, and can only answer: listeners and clocks (SourceHarness).
//   - Services runs services (ServiceHarness).
//
// A new system is added so:
//
//  1. Its server: a line in hack/deps.sh installs Debian's package, and a package beside rabbitmqtest starts the program by servers.Start, on
//     loopback with free ports, in a folder of its own, with TLS by a certs.Authority that also signs the clients' certificates. It is
//     started by the first test that asks for it, and closed by TestMain; each harness gets a user and a queue (a table, a folder) of its own.
//  2. <system>_test.go here: a function that makes the harness, and TestXSource and TestXSink of one line each. What is common is in
//     fields (options, secrets right and wrong); what breaks the system is in functions (Stop, Start, Rotate, Remove, Restore, Slow). A field
//     that is nil is what the system cannot do: its behaviours are passed over, and its page in docs/connectors says so. A claim
//     (AtLeastOnce, Arrived, Ordered, Shared) is a promise of that page.
//  3. Tests of what only it has, in its own package.
//
// A system that the catalogue does not list is added first (Add): one that is being written, or that lives elsewhere.
//
// Kills are real: PullSources runs the source in processes of their own (Main), which kill themselves between the steps of a message.
package conformance
