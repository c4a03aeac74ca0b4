// Command bench measures MetIP beside the smallest hand-written pipeline that keeps the same promise (test/bench/ref), on the same
// broker, through the same accounts, in the same run; and the operator on a real API server. It prints a table and writes
// out/bench.json. It judges nothing: figures are reported as they are, with the target beside them where there is one. Each flow is a file;
// test/bench/bulk has the engine and nats.go by themselves, where a system's own speed would hide theirs.
//
// What is measured runs as processes of its own (broker, connectors, ref, manager, API server), so that CPU time and memory are
// each process's own. The load and the target system are this process. docs/performance.md tells how to read the figures.
package main
