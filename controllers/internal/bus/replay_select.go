package bus

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
)

// stored is a message as a stream has it.
type stored struct {
	subject  string
	header   nats.Header
	data     []byte
	sequence uint64
	at       time.Time
}

const headerMsgID = "Nats-Msg-Id"

// chooser tells which messages of the range a Replay is about, and which of its ids each has.
func (r Replay) chooser() func(stored) (id string, ok bool) {
	ids := map[string]bool{}
	for _, id := range r.IDs {
		ids[id] = true
	}
	return func(m stored) (string, bool) {
		if r.Dead && len(r.Reasons) > 0 && !slices.Contains(r.Reasons, value(m.header, contract.HeaderDeadReason)) {
			return "", false
		}
		if len(ids) == 0 {
			return "", true
		}
		names := []string{contract.HeaderID, headerMsgID}
		if r.Dead {
			names[1] = contract.HeaderDeadMessageID
		}
		for _, name := range names {
			escaped := value(m.header, name)
			if ids[escaped] {
				return escaped, true
			}
			if plain, err := url.PathUnescape(escaped); err == nil && ids[plain] {
				return plain, true
			}
		}
		return "", false
	}
}

// value of a header, by its exact name.
func value(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// copyOf a message for the Replay's destination: its body and headers, but for the broker's, and where it comes from. A dead letter becomes the
// message again that it was.
func (r Replay) copyOf(m stored) *nats.Msg {
	from := origin{subject: m.subject, sequence: strconv.FormatUint(m.sequence, 10), messageID: value(m.header, headerMsgID)}
	if r.Dead {
		redrives, err := strconv.Atoi(value(m.header, contract.HeaderDeadRedrives))
		if err != nil || redrives < 0 {
			redrives = 0
		}
		from = origin{
			subject: value(m.header, contract.HeaderDeadSubject), sequence: value(m.header, contract.HeaderDeadSequence),
			messageID: value(m.header, contract.HeaderDeadMessageID), redrives: strconv.Itoa(redrives + 1),
		}
	}
	out := &nats.Msg{
		Subject: contract.ReplaySubject(r.Namespace, r.Integration, r.Route, r.Destination, from.slot(m.header)),
		Header:  make(nats.Header, len(m.header)+6), Data: m.data,
	}
	for name, values := range m.header {
		if !ofBroker(name) && !strings.HasPrefix(name, contract.HeaderDeadPrefix) && !strings.HasPrefix(name, contract.HeaderReplayPrefix) {
			out.Header[name] = values
		}
	}
	for name, v := range map[string]string{
		headerMsgID: contract.ReplayMessageID(string(r.UID), m.sequence), contract.HeaderReplayName: r.Name,
		contract.HeaderReplaySubject: from.subject, contract.HeaderReplaySequence: from.sequence,
		contract.HeaderReplayMessageID: from.messageID, contract.HeaderReplayRedrives: from.redrives,
	} {
		if v != "" {
			out.Header[name] = []string{v}
		}
	}
	return out
}

// origin is where a message was in the event stream first.
type origin struct{ subject, sequence, messageID, redrives string }

// slot of the lane that the message belongs to.
func (o origin) slot(h nats.Header) int {
	if slot, ok := contract.EventSlot(o.subject); ok {
		return slot
	}
	key := value(h, contract.HeaderPartitionKey)
	if key == "" {
		key = value(h, contract.HeaderID)
	}
	return contract.Slot(key)
}

func ofBroker(name string) bool { return len(name) >= 5 && strings.EqualFold(name[:5], "nats-") }

// Pace holds a Replay to its rate, smoothly: about ten steps a second, and nothing is made up for that was not used a quarter of a second ago.
// The zero value has no rate.
type Pace struct {
	rate   float64
	tokens float64
	at     time.Time
}

// SetRate in messages a second.
func (p *Pace) SetRate(rate int) { p.rate = float64(rate) }

// step is how many messages go at a time.
func (p *Pace) step() float64 { return min(max(1, p.rate/10), copyBatch) }

// take says how many messages may go now or, if it is not yet time for a step, how long to wait.
func (p *Pace) take(now time.Time) (n int, wait time.Duration) {
	if p.rate <= 0 {
		return copyBatch, 0
	}
	if p.at.IsZero() {
		p.tokens = p.step()
	} else {
		p.tokens = min(p.tokens+p.rate*now.Sub(p.at).Seconds(), max(p.step(), p.rate/4))
	}
	p.at = now
	if missing := p.step() - p.tokens; missing > 0 {
		return 0, max(time.Millisecond, time.Duration(missing/p.rate*float64(time.Second)))
	}
	return int(min(p.tokens, copyBatch)), 0
}

// used says how many of the messages that were taken went.
func (p *Pace) used(n int) { p.tokens -= float64(n) }
