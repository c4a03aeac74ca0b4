// Package engine runs one connector pod: it reads the configuration, connects to the broker as the least user that will do, and
// moves messages between the broker and one system (package sdk). It owns publishing, consuming, steps, acknowledging, retries, dead
// letters, the reports, health, metrics, the watching of mounted Secrets, and drain. It knows no system and nothing of Kubernetes.
//
// Promises and how they are kept:
//   - A source's Publish returns nil only after the broker confirmed (publisher.go). A broken connection or a time-out is tried again
//     with the same ids, which the broker de-duplicates.
//   - A message is acknowledged only after the system confirmed it, or the dead-letter stream did (settle.go, dead.go). Acknowledgements are
//     not confirmed in turn: one that is lost means that the message comes again, to a sink that has to be idempotent anyway.
//   - Attempts are counted in memory, by stream sequence. What a pod does not remember (it restarted, or another replica tried) it takes
//     from the broker's delivery count less an allowance for deliveries that ended without a try. A message is therefore tried at least as
//     often as configured, and a few times more where pods die meanwhile; never less.
//   - Where a destination keeps an order, no message of a key is tried before the one before it is done with. A hand-over between pods may repeat
//     messages, from an earlier one on and without a gap (lane.go).
//   - While a system is unavailable its messages wait where they are, and lose no attempt (circuit.go).
package engine
