package engine

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

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
	// removed step: its groups are complete with what they have.
	removed bool
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
	m := member{
		ID: in.MessageID, Time: in.Time, Accepted: in.Accepted, Hops: in.Hops, Marking: in.Headers["marking"],
		Trace: in.Headers[contract.HeaderTraceParent], Data: slices.Clone(in.Data),
	}
	if doc.Bytes+m.size() > contract.MaxMemberBytes {
		a.complete(doc, contract.CompletionFull)
	}
	if len(doc.Members) == 0 {
		doc.Since = now.UnixMilli()
	}
	doc.Bytes += m.size()
	doc.Members = append(doc.Members, m)
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
	if a.removed {
		a.complete(doc, contract.CompletionRemoved)
	}
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
	if len(doc.Waiting) == 0 {
		doc.Since = now.UnixMilli()
	}
	w := turn{Number: in.number, ID: in.MessageID, Event: event}
	doc.Bytes += w.size()
	doc.Waiting = slices.Insert(doc.Waiting, at, w)
	r.pass(doc, now)
	for doc.Bytes > maxWaiting || len(doc.Waiting) > contract.MaxMembers {
		r.skip(doc, now)
	}
	return nil
}

// pass those whose turn it is.
func (r *resequencer) pass(doc *stateDoc, now time.Time) {
	n := 0
	for ; n < len(doc.Waiting) && doc.Waiting[n].Number == doc.Next; n++ {
		w := doc.Waiting[n]
		doc.Out, doc.Done, doc.Bytes = append(doc.Out, w.Event), doc.Done.add(w.ID), doc.Bytes-w.size()
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
