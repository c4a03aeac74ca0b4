package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// How long a message waits whose dead letter could not be stored.
const (
	deadFullWait  = 5 * time.Second
	deadRetryWait = time.Second
	// maxDeadError in bytes, of the error that goes with a dead letter.
	maxDeadError = 2048
)

// deadLetter is why a message goes to the dead letters.
type deadLetter struct {
	reason, step string
	err          error
}

// bury a message: into the dead-letter stream, and only once that is confirmed, off the consumer. The subject holds the message's sequence
// and is written once, so that doing it again changes nothing.
func (d *destination) bury(h *held, why *deadLetter) {
	h.dead = why
	err := d.sink.publishDead(d.deadLetter(h, why))
	switch {
	case err == nil, isCode(err, codeWrongLastSequence):
		d.metrics.dead.WithLabelValues(why.reason).Inc()
		d.log.Warn("a message went to the dead letters", "sequence", h.seq, "reason", why.reason, "step", why.step, "attempts", h.tried, "error", message(why.err))
		d.setDeadLetters("", nil)
		d.settled(h, ackTerm)
	case errors.Is(err, sdk.ErrFull):
		d.setDeadLetters(contract.ReasonDeadLetterFull, fmt.Errorf("the dead letters of Integration %s are full: redrive or purge them, or raise their limit", d.route.Integration))
		d.later(h, deadFullWait)
	default:
		if d.sink.conn.isUp() {
			d.setDeadLetters(contract.ReasonBrokerUnreachable, fmt.Errorf("dead letters cannot be stored: %w", err))
		}
		d.later(h, deadRetryWait)
	}
}

func (d *destination) setDeadLetters(reason string, err error) {
	d.mu.Lock()
	changed := d.deadLetters.set(reason, err)
	d.mu.Unlock()
	if changed {
		d.sink.changed()
	}
}

// deadLetter has the body and the headers of the original, also where a Replay's copy of it failed. The broker's own headers are left out,
// for two destinations' dead letters of one message must not be taken for duplicates; the message id stays under another name.
func (d *destination) deadLetter(h *held, why *deadLetter) *nats.Msg {
	c := d.sink.config.Connector
	from := originOf(h)
	m := &nats.Msg{
		Subject: contract.DeadSubject(c.Namespace, d.route.Integration, d.route.Name, d.route.Destination, from.sequence, from.redrive),
		Header:  make(nats.Header, len(h.in.Header)+14),
		Data:    h.in.Data,
	}
	for name, values := range h.in.Header {
		if !isBroker(name) && !strings.HasPrefix(name, contract.HeaderDeadPrefix) && !strings.HasPrefix(name, contract.HeaderReplayPrefix) {
			m.Header[name] = values
		}
	}
	text := strings.ToValidUTF8(why.err.Error(), "?")
	if len(text) > maxDeadError {
		text = text[:maxDeadError]
	}
	for name, value := range map[string]string{
		contract.HeaderDeadRoute: d.route.Name, contract.HeaderDeadDestination: d.route.Destination, contract.HeaderDeadConnector: c.Name,
		contract.HeaderDeadStep: why.step, contract.HeaderDeadReason: why.reason, contract.HeaderDeadError: text,
		contract.HeaderDeadAttempts: strconv.Itoa(h.tried), contract.HeaderDeadTime: time.Now().UTC().Format(time.RFC3339Nano),
		contract.HeaderDeadStream: d.route.Stream, contract.HeaderDeadSequence: strconv.FormatUint(from.sequence, 10), contract.HeaderDeadSubject: from.subject,
		contract.HeaderDeadMessageID: from.messageID, contract.HeaderDeadRedrives: from.redrives,
		contract.HeaderDeadPart: partOf(h), headerExpectedLastBySubj: "0",
	} {
		if value != "" {
			m.Header[name] = []string{value}
		}
	}
	return m
}

// partOf a message that was split: the first that failed, or that was to be tried; empty for a message that was not split.
func partOf(h *held) string {
	if h.progress == nil || h.progress.first() == h.progress.count {
		return ""
	}
	return strconv.Itoa(h.progress.first())
}

// publishDead waits for the confirmation of a dead letter.
func (s *sinkRunner) publishDead(m *nats.Msg) error {
	done := make(waiter, 1)
	token, err := s.replies.publish(m, done)
	if err != nil {
		return classify(err)
	}
	select {
	case err := <-done:
		if err == nil {
			return nil
		}
		return classify(err)
	case <-s.deliver.Done():
		s.replies.forget(token)
		return context.Cause(s.deliver)
	}
}

// waiter is one that waits for one confirmation.
type waiter chan error

func (w waiter) confirm(_ bool, err error) { w <- err }
