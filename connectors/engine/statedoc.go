package engine

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"sort"
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
	// Bytes of the bodies that wait.
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
	// maxOut of bodies in one document, from which on nothing more is taken in before it is published.
	maxOut = 2 << 20
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

func hashOf(id string) uint64 {
	f := fnv.New64a()
	_, _ = f.Write([]byte(id))
	return f.Sum64()
}

func (h hashes) has(id string) bool {
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
	h = binary.LittleEndian.AppendUint64(slices.Clip(h), hashOf(id))
	return h[max(0, len(h)-8*rememberDone):]
}

// clone of a document that may be changed.
func (d *stateDoc) clone() *stateDoc {
	c := *d
	c.Members, c.Waiting, c.Out, c.Done = slices.Clip(d.Members), slices.Clone(d.Waiting), slices.Clip(d.Out), slices.Clip(d.Done)
	return &c
}

func (d *stateDoc) outBytes() (n int) {
	for _, e := range d.Out {
		n += len(e.Data)
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

// machine is what a step does with documents. It changes the document that it is given, and nothing else.
type machine interface {
	// take a message into its key's document. An error is the message's own.
	take(doc *stateDoc, in *input, now time.Time) error
	// ripen what has waited long enough.
	ripen(doc *stateDoc, now time.Time)
	// timeout of what waits; 0 for none. idle is how long a document is kept of which nothing waits.
	timeout() time.Duration
	idle() time.Duration
}

// input is a message on its way into a document.
type input struct {
	*sdk.Delivery
	key string
	// last of its group; number in its sequence.
	last   bool
	number int64
}

// aggregator makes one message of the members of a group.
type aggregator struct {
	contract.Aggregate
	// event of a complete group.
	event func(key string, group uint64, members []member, completion string) storedEvent
}

func (a *aggregator) timeout() time.Duration { return time.Duration(a.Timeout) }
func (a *aggregator) idle() time.Duration    { return idleGroup }

func (a *aggregator) take(doc *stateDoc, in *input, now time.Time) error {
	if doc.Done.has(in.MessageID) || slices.ContainsFunc(doc.Members, func(m member) bool { return m.ID == in.MessageID }) {
		return nil
	}
	switch {
	case in.Hops >= contract.MaxHops:
		return errHopLimit
	case in.Format != sdk.FormatJSON && in.Format != "":
		return fmt.Errorf("its body is %s, and JSON is aggregated", in.Format)
	case len(in.Data) > contract.MaxMemberBytes:
		return fmt.Errorf("its body has %d bytes, and a member may have %d", len(in.Data), contract.MaxMemberBytes)
	}
	if err := sdk.CheckFormat(sdk.FormatJSON, in.Data); err != nil {
		return err
	}
	if doc.Bytes+len(in.Data) > contract.MaxMemberBytes {
		a.complete(doc, contract.CompletionFull)
	}
	if len(doc.Members) == 0 {
		doc.Since = now.UnixMilli()
	}
	doc.Bytes += len(in.Data)
	doc.Members = append(doc.Members, member{
		ID: in.MessageID, Time: in.Time, Accepted: in.Accepted, Hops: in.Hops, Marking: in.Headers["marking"],
		Trace: in.Headers[contract.HeaderTraceParent], Data: slices.Clone(in.Data),
	})
	switch {
	case a.Count > 0 && len(doc.Members) >= int(a.Count):
		a.complete(doc, contract.CompletionCount)
	case in.last:
		a.complete(doc, contract.CompletionWhen)
	case len(doc.Members) >= contract.MaxMembers:
		a.complete(doc, contract.CompletionFull)
	}
	return nil
}

func (a *aggregator) ripen(doc *stateDoc, now time.Time) {
	if a.Timeout > 0 && len(doc.Members) > 0 && now.Sub(time.UnixMilli(doc.Since)) >= time.Duration(a.Timeout) {
		a.complete(doc, contract.CompletionTimeout)
	}
}

func (a *aggregator) complete(doc *stateDoc, why string) {
	if len(doc.Members) == 0 {
		return
	}
	doc.Groups++
	doc.Out = append(doc.Out, a.event(doc.Key, doc.Groups, doc.Members, why))
	for _, m := range doc.Members {
		doc.Done = doc.Done.add(m.ID)
	}
	doc.Members, doc.Bytes, doc.Since = nil, 0, 0
}

// resequencer lets messages pass in the order of their numbers.
type resequencer struct {
	contract.Resequence
	// event that a message becomes.
	event func(*sdk.Delivery, time.Time) (storedEvent, error)
}

func (r *resequencer) timeout() time.Duration { return time.Duration(r.Timeout) }
func (r *resequencer) idle() time.Duration    { return idleSequence }

func (r *resequencer) take(doc *stateDoc, in *input, now time.Time) error {
	if doc.Done.has(in.MessageID) || slices.ContainsFunc(doc.Waiting, func(w turn) bool { return w.ID == in.MessageID }) {
		return nil
	}
	if !doc.Begun {
		doc.Begun, doc.Next = true, r.Start
	}
	at := sort.Search(len(doc.Waiting), func(i int) bool { return doc.Waiting[i].Number >= in.number })
	switch {
	case in.number < doc.Next:
		return fmt.Errorf("its number %d is behind: it is the turn of %d. It came twice, or more than %s late", in.number, doc.Next, time.Duration(r.Timeout))
	case at < len(doc.Waiting) && doc.Waiting[at].Number == in.number:
		return fmt.Errorf("its number %d is another message's, which waits for its turn", in.number)
	case len(in.Data) > contract.MaxMemberBytes:
		return fmt.Errorf("its body has %d bytes, and one that may have to wait may have %d", len(in.Data), contract.MaxMemberBytes)
	}
	event, err := r.event(in.Delivery, now)
	if err != nil {
		return err
	}
	if doc.Bytes+len(in.Data) > contract.MaxMemberBytes || len(doc.Waiting) >= contract.MaxMembers {
		r.skip(doc, now)
		at = sort.Search(len(doc.Waiting), func(i int) bool { return doc.Waiting[i].Number >= in.number })
		if in.number < doc.Next {
			return fmt.Errorf("its number %d is behind: too many were waiting for it", in.number)
		}
	}
	if len(doc.Waiting) == 0 {
		doc.Since = now.UnixMilli()
	}
	doc.Bytes += len(in.Data)
	doc.Waiting = slices.Insert(doc.Waiting, at, turn{Number: in.number, ID: in.MessageID, Event: event})
	r.pass(doc, now)
	return nil
}

// pass those whose turn it is.
func (r *resequencer) pass(doc *stateDoc, now time.Time) {
	n := 0
	for ; n < len(doc.Waiting) && doc.Waiting[n].Number == doc.Next; n++ {
		w := doc.Waiting[n]
		doc.Out, doc.Done, doc.Bytes = append(doc.Out, w.Event), doc.Done.add(w.ID), doc.Bytes-len(w.Event.Data)
		doc.Next++
	}
	if n == 0 {
		return
	}
	doc.Waiting, doc.Since = slices.Clone(doc.Waiting[n:]), 0
	if len(doc.Waiting) > 0 {
		doc.Since = now.UnixMilli()
	} else {
		doc.Waiting = nil
	}
}

// skip the numbers that are missing before the first that waits.
func (r *resequencer) skip(doc *stateDoc, now time.Time) {
	if len(doc.Waiting) > 0 {
		doc.Next = doc.Waiting[0].Number
		r.pass(doc, now)
	}
}

func (r *resequencer) ripen(doc *stateDoc, now time.Time) {
	if len(doc.Waiting) > 0 && now.Sub(time.UnixMilli(doc.Since)) >= time.Duration(r.Timeout) {
		r.skip(doc, now)
	}
}

// headersOf an aggregate's message: of its group, and of its members what they have in common.
func (o *relayOperation) groupEvent(uid, key string, group uint64, members []member, completion string) storedEvent {
	id := contract.RelayMessageID(o.route, o.destination, "group/"+uid+"/"+contract.StateToken(key)+"/"+strconv.FormatUint(group, 10), 0)
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
