package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// stateDoc is what is known of one key: what waits, what is to be published, and what has been taken in already. A message is acknowledged once
// the document that it has changed is written and Out is empty: one that comes again because the acknowledgement was lost is found here.
type stateDoc struct {
	Key string `json:"key"`
	// Owner is the message that was the first of the key (deduplicate).
	Owner string `json:"owner,omitempty"`
	// Groups that were completed.
	Groups uint64 `json:"groups,omitempty"`
	// Since is when what waits began to, in Unix milliseconds: the first member came, or a number was missed first.
	Since int64 `json:"since,omitempty"`
	// Members of the group that is open.
	Members []member `json:"members,omitempty"`
	// Next is the number whose turn it is, once Begun. Waiting have higher ones, in their order.
	Next    int64  `json:"next,omitempty"`
	Begun   bool   `json:"begun,omitempty"`
	Waiting []turn `json:"waiting,omitempty"`
	// Bytes that what waits takes in the document.
	Bytes int `json:"bytes,omitempty"`
	// Done are messages that were taken in and wait no more: the last ones, as hashes of their ids.
	Done hashes `json:"done,omitempty"`
	// Out are events that are to be published, in their order.
	Out []storedEvent `json:"out,omitempty"`
}

// Bounds of a document.
const (
	// rememberDone is more than the broker lets be unacknowledged.
	rememberDone = 2100
	// maxWaiting of messages in a document as it is written: one of the largest, or many small ones. What is more passes, or is complete.
	maxWaiting = (contract.MaxMemberBytes+2)/3*4 + 2*contract.MaxHeaderSize
	// maxOut in a document as it is written, from which on nothing more is taken in before it is published. The document is never larger than
	// maxOut and twice maxWaiting, what waits and what is taken in, which fits into one message of the broker.
	maxOut = 1 << 20
	// freeAttributes of a member do not count towards its group.
	freeAttributes = 512
	// idleGroup and idleSequence are how long a key is remembered of which nothing waits: longer than any window of de-duplication.
	idleGroup    = 48 * time.Hour
	idleSequence = 30 * 24 * time.Hour
)

// member of a group.
type member struct {
	ID       string          `json:"id"`
	Time     time.Time       `json:"time"`
	Accepted string          `json:"accepted,omitempty"`
	Hops     int             `json:"hops,omitempty"`
	Marking  string          `json:"marking,omitempty"`
	Trace    string          `json:"trace,omitempty"`
	Data     json.RawMessage `json:"data"`
}

// turn that a message waits for.
type turn struct {
	Number int64       `json:"n"`
	ID     string      `json:"id"`
	Event  storedEvent `json:"event"`
}

// storedEvent is an encoded message.
type storedEvent struct {
	Subject string            `json:"subject"`
	Header  map[string]string `json:"header"`
	Data    []byte            `json:"data,omitempty"`
}

// hashes of ids, eight bytes each.
type hashes []byte

// MarshalJSON writes them as one text.
func (h hashes) MarshalJSON() ([]byte, error) {
	return json.Marshal(base64.StdEncoding.EncodeToString(h))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *hashes) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	*h = raw
	return err
}

// hashOf an id. Senders choose ids, so that it must be hard to find two that have the same.
func hashOf(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.LittleEndian.Uint64(sum[:])
}

func (h hashes) has(id string) bool {
	if len(h) == 0 {
		return false
	}
	want := hashOf(id)
	for i := 0; i+8 <= len(h); i += 8 {
		if binary.LittleEndian.Uint64(h[i:]) == want {
			return true
		}
	}
	return false
}

// add an id; the oldest are forgotten.
func (h hashes) add(id string) hashes {
	h = binary.LittleEndian.AppendUint64(h, hashOf(id))
	return h[max(0, len(h)-8*rememberDone):]
}

// quoted is how many bytes a text has in JSON.
func quoted(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			n++
		case c < ' ' || c > '~':
			n += 5
		}
	}
	return n
}

// size of an event in a document.
func (e *storedEvent) size() int {
	n := base64.StdEncoding.EncodedLen(len(e.Data)) + quoted(e.Subject) + 40
	for name, value := range e.Header {
		n += quoted(name) + quoted(value) + 2
	}
	return n
}

func (w *turn) size() int { return w.Event.size() + quoted(w.ID) + 50 }

// size of a member in its group: that of its body, and of attributes that are longer than is usual.
func (m *member) size() int {
	return len(m.Data) + max(0, quoted(m.ID)+quoted(m.Marking)+quoted(m.Trace)+quoted(m.Accepted)-freeAttributes)
}

// clone of a document that may be changed.
func (d *stateDoc) clone() *stateDoc {
	c := *d
	c.Members, c.Waiting, c.Out, c.Done = slices.Clip(d.Members), slices.Clone(d.Waiting), slices.Clip(d.Out), slices.Clone(d.Done)
	return &c
}

// outBytes that the events from one on take in the document.
func (d *stateDoc) outBytes(from int) (n int) {
	for i := from; i < len(d.Out); i++ {
		n += d.Out[i].size()
	}
	return n
}

// same tells whether a clone has not been changed: whatever is done to one adds to one of these or takes away.
func (d *stateDoc) same(c *stateDoc) bool {
	return d.Groups == c.Groups && d.Next == c.Next && d.Begun == c.Begun && len(d.Members) == len(c.Members) && len(d.Waiting) == len(c.Waiting) &&
		len(d.Out) == len(c.Out)
}

// ownerOf an encoded document.
func ownerOf(raw []byte) string {
	var doc stateDoc
	if json.Unmarshal(raw, &doc) != nil {
		return ""
	}
	return doc.Owner
}

// published document: Out has been.
func (d *stateDoc) published() *stateDoc {
	c := d.clone()
	c.Out = nil
	return c
}

// groupEvent is an aggregate's message: of its group, and of its members what they have in common. Groups are counted while their key is
// remembered; its first member makes the id of one that comes later another one, or a system that knows ids would take it for the same.
func (o *relayOperation) groupEvent(uid, key string, group uint64, members []member, completion string) storedEvent {
	id := contract.RelayMessageID(o.route, o.destination, "group/"+uid+"/"+contract.StateToken(key+"\x00"+members[0].ID)+"/"+strconv.FormatUint(group, 10), 0)
	lastOne := members[len(members)-1]
	hops, marking, accepted := 0, members[0].Marking, members[0].Accepted
	size := 2
	for _, m := range members {
		hops = max(hops, m.Hops)
		if m.Marking != marking { // of two, none says what both together are: the Integration does
			marking = ""
		}
		size += len(m.Data) + 1
	}
	body := append(make([]byte, 0, size), '[')
	for i, m := range members {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, m.Data...)
	}
	e := storedEvent{
		Subject: o.subjects[contract.Slot(key)], Data: append(body, ']'),
		Header: map[string]string{
			headerMsgID: escapeHeader(id), contract.HeaderSpecVersion: contract.SpecVersion, contract.HeaderID: contract.StateToken(id),
			contract.HeaderType: o.eventType, contract.HeaderSource: escapeHeader(o.source + "aggregate"), contract.HeaderHops: strconv.Itoa(hops + 1),
			contract.HeaderTime: lastOne.Time.UTC().Format(time.RFC3339Nano), contract.HeaderFormat: sdk.FormatJSON, contract.HeaderContentType: "application/json",
			contract.HeaderAccepted: accepted, contract.HeaderPartitionKey: escapeHeader(key), contract.HeaderTraceParent: lastOne.Trace,
			contract.HeaderMarking: o.marking,
			contract.HeaderExtensionPrefix + contract.ExtensionCompletion: completion, contract.HeaderExtensionPrefix + contract.ExtensionSize: strconv.Itoa(len(members)),
		},
	}
	if marking != "" {
		e.Header[contract.HeaderMarking] = escapeHeader(marking)
	}
	if !validTraceParent(lastOne.Trace) {
		e.Header[contract.HeaderTraceParent] = newTraceParent()
	}
	for name, value := range e.Header {
		if value == "" {
			delete(e.Header, name)
		}
	}
	return e
}

// store an encoded message.
func (o *encoded) store() storedEvent {
	e := storedEvent{Subject: o.Subject, Header: make(map[string]string, len(o.Header)), Data: slices.Clone(o.Data)}
	for name, values := range o.Header {
		e.Header[name] = values[0]
	}
	return e
}

// load a stored event.
func (o *encoded) load(e storedEvent) {
	o.reset()
	o.Subject, o.Data = e.Subject, e.Data
	for name, value := range e.Header {
		o.set(name, value)
	}
	o.size += len(e.Data)
}
