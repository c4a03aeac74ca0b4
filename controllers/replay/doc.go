// Package replay reconciles Replays: it plans what each covers, counts it, and has package bus copy it in runs of two seconds, with the
// progress written down after each. The order of things is what makes an interruption harmless: the plan is written before the first copy, a
// copy is confirmed before the progress, and the progress is written before a dead letter goes. What a killed operator had copied and
// not written down is found in the stream again.
package replay
