// Package chaos runs the real binaries as processes (the NATS server as the operator configures it, a source and two sinks as their pods run) and breaks
// them at random while a client posts: kill -9, frozen processes, cut and half-open connections, slow and lying systems, full disks, leaders that
// step down; some of the messages are larger than the bus carries, and travel as claim checks; all the while the operator's trimmer takes away what has been delivered. In the end it counts every id: none that was
// acknowledged is lost, each body is what was sent, and each that arrived twice has a reason that docs/guarantees.md names.
//
// `make chaos` runs it for ten minutes, `make test` for two. The order of the faults follows from a seed, which is printed:
// METIP_CHAOS_SEED repeats it, METIP_CHAOS_DURATION sets the time. Being root adds full disks (a tmpfs for each server, in a mount namespace that
// ends with the test).
//
// Steps of the clock are not among the faults: the clock of the machine is everybody's, and static Go programs take no other. What reads the
// wall clock is listed in docs/guarantees.md.
package chaos
