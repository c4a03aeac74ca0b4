package engine

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
)

// A Replay delivers a copy of a message under a subject of its own (contract.ReplaySubject). It is treated as the original: the same checks,
// the same steps, the same message id, so that a sink that has the original already recognises it.

func isReplay(subject string) bool { return strings.HasPrefix(subject, contract.ReplayPrefix) }

// originalSubject of a message. Only the operator can publish copies, so that what a copy says of its original holds; the same headers on any
// other message mean nothing.
func originalSubject(in *nats.Msg) string {
	if isReplay(in.Subject) {
		return first(in.Header, contract.HeaderReplaySubject)
	}
	return in.Subject
}

// origin of a message: itself, or the message that it is a copy of.
type origin struct {
	subject, messageID string
	sequence           uint64
	// redrive tells deliveries of one message apart: 0 for the original.
	redrive uint64
	// redrives is how often it came out of the dead letters; empty for never.
	redrives string
}

func originOf(h *held) origin {
	header := h.in.Header
	if !isReplay(h.in.Subject) {
		return origin{subject: h.in.Subject, messageID: first(header, headerMsgID), sequence: h.seq}
	}
	o := origin{
		subject: first(header, contract.HeaderReplaySubject), messageID: first(header, contract.HeaderReplayMessageID),
		redrive: h.seq, redrives: first(header, contract.HeaderReplayRedrives),
	}
	var err error
	if o.sequence, err = strconv.ParseUint(first(header, contract.HeaderReplaySequence), 10, 64); err != nil {
		o.sequence = h.seq
	}
	return o
}
