package contract

import (
	"strconv"
	"strings"
)

// A Replay puts copies of messages into the event stream again, for one destination of one Route. Their subjects are a space of their own,
// which only the operator (account BUS) can publish to: account EDGE does not even import it. Every durable consumer of the
// destination filters it besides the events and the mark.

// ReplayPrefix begins the subject of every copy.
const ReplayPrefix = "rpl."

// Headers of a copy, besides those of the message that it is a copy of. They mean something under ReplayPrefix only: anywhere else
// anybody may have written them.
const (
	// HeaderReplayName is the Replay that made the copy.
	HeaderReplayName = "metip-replay-name"
	// HeaderReplaySubject and HeaderReplaySequence are where the original is, or was, in the event stream.
	HeaderReplaySubject  = "metip-replay-subject"
	HeaderReplaySequence = "metip-replay-sequence"
	// HeaderReplayMessageID is the original's message id on the bus, which idempotence keys derive from; missing where it had none.
	HeaderReplayMessageID = "metip-replay-message-id"
	// HeaderReplayRedrives is how often the message was taken out of the dead letters, this time included; missing where it never was.
	HeaderReplayRedrives = "metip-replay-redrives"

	// HeaderReplayPrefix begins all of them.
	HeaderReplayPrefix = "metip-replay-"
)

// ReplaySubjects are all subjects of an Integration's copies.
func ReplaySubjects(namespace, integration string) string {
	return ReplayPrefix + namespace + "." + integration + ".>"
}

// ReplayFilter is the subject filter of a destination's copies, in any slot.
func ReplayFilter(namespace, integration, route, destination string) string {
	return ReplayPrefix + namespace + "." + integration + "." + route + "." + destination + ".*"
}

// ReplaySubject is the subject of one copy. The slot is the original's, so that a copy goes to the lane of its key.
func ReplaySubject(namespace, integration, route, destination string, slot int) string {
	return ReplayPrefix + namespace + "." + integration + "." + route + "." + destination + "." + strconv.Itoa(slot)
}

// ReplayMessageID is what the broker de-duplicates copies by: a Replay copies what has a sequence once, however often it is interrupted.
func ReplayMessageID(replayUID string, sequence uint64) string {
	return replayMessageIDs(replayUID) + strconv.FormatUint(sequence, 10)
}

// ParseReplayMessageID is the inverse of ReplayMessageID, for the copies of one Replay.
func ParseReplayMessageID(replayUID, id string) (sequence uint64, ok bool) {
	digits, ok := strings.CutPrefix(id, replayMessageIDs(replayUID))
	if !ok {
		return 0, false
	}
	sequence, err := strconv.ParseUint(digits, 10, 64)
	return sequence, err == nil
}

func replayMessageIDs(replayUID string) string { return "replay/" + replayUID + "/" }

// EventSlot is the slot in the subject of an event.
func EventSlot(subject string) (slot int, ok bool) {
	parts := strings.SplitN(subject, ".", 6)
	if len(parts) < 6 || parts[0] != "evt" {
		return 0, false
	}
	slot, err := strconv.Atoi(parts[4])
	return slot, err == nil && slot >= 0 && slot < Slots
}
