package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

// Claims go when no message names them: no event, no copy of a Replay, no dead letter. Messages say by a header what they name, and move
// between the streams: from the events to the dead letters, and by a Replay from either back to the events. Each is in its new place before it
// leaves the old one, and events leave only from the front of their stream. So a look reads the claims first, then the dead letters, and
// the events last, and believes what it has seen only if the front of the events has not moved meanwhile: then what was in no place that it
// read was in none.
//
// Every message is read once, and without its body; what was seen is kept. Events are read of those Connectors only that have claims.

const (
	// claimScan is how long one look may read.
	claimScan = 4 * time.Second
	// restLooks is for how many intervals of the trimmer (2 minutes) a claim is kept that is named no more: a Replay may have read the message
	// that named it, and be about to copy it.
	restLooks = 8
	// orphanLooks is for how many (15 minutes) one is kept that was never named: its source may still be about to publish the message, for
	// contract.ClaimTimeout.
	orphanLooks = 60

	headerMsgSize = "Nats-Msg-Size"
)

// claimIndex is what is known of an Integration's claims.
type claimIndex struct {
	namespace, integration string
	// made is when the three streams were made, as one text: when one is made anew everything is read again.
	made string
	// read up to these places.
	chunks, letters, events place
	// connectors that have claims, whose events are read.
	connectors map[string]bool
	claims     map[string]*claimState
	// named is the highest sequence of an event that names a claim, and dead are those of dead letters.
	named map[string]uint64
	dead  map[string][]uint64
}

// place in a stream: a sequence, and when its message was stored.
type place struct {
	sequence uint64
	at       time.Time
}

// claimState of one claim.
type claimState struct {
	connector string
	bytes     int64
	// last is when its last chunk was stored. void: its source will not name it.
	last time.Time
	void bool
	// wasNamed, and unnamed is since when it is no more.
	wasNamed bool
	unnamed  time.Time
}

func newClaimIndex(namespace, integration, made string) *claimIndex {
	return &claimIndex{
		namespace: namespace, integration: integration, made: made,
		connectors: map[string]bool{}, claims: map[string]*claimState{}, named: map[string]uint64{}, dead: map[string][]uint64{},
	}
}

// allClaims looks at the claims of every Integration that has some.
func (t *trimmer) allClaims(ctx context.Context, infos []*jetstream.StreamInfo) {
	if t.scan == nil {
		return
	}
	present := map[string]bool{}
	for _, info := range infos {
		present[info.Config.Name] = true
		if err := t.cleanClaims(ctx, info); err != nil && ctx.Err() == nil && !errors.Is(err, errBehind) {
			t.log.Info("claim checks were not looked at", "stream", info.Config.Name, "error", err.Error())
		}
	}
	for name, x := range t.claims {
		if !present[name] {
			delete(t.claims, name)
			delete(t.crowded, contract.EventStream(x.namespace, x.integration))
			t.forgetClaims(x)
		}
	}
}

// cleanClaims of one Integration.
func (t *trimmer) cleanClaims(ctx context.Context, listed *jetstream.StreamInfo) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	namespace, integration := listed.Config.Metadata[metaNamespace], listed.Config.Metadata[metaIntegration]
	chunks, err := t.info(ctx, listed.Config.Name)
	if err != nil {
		return err
	}
	letters, err := t.info(ctx, contract.DeadStream(namespace, integration))
	if err != nil {
		return err
	}
	events, err := t.info(ctx, contract.EventStream(namespace, integration))
	if err != nil {
		return err
	}
	made := fmt.Sprint(chunks.Created.UnixNano(), letters.Created.UnixNano(), events.Created.UnixNano())
	x := t.claims[listed.Config.Name]
	cut := false
	if x != nil && x.made == made {
		if cut, err = t.cutBack(ctx, map[*jetstream.StreamInfo]place{chunks: x.chunks, letters: x.letters, events: x.events}); err != nil {
			return err
		}
	}
	if x == nil || x.made != made || cut {
		x = newClaimIndex(namespace, integration, made)
		t.claims[listed.Config.Name] = x
	}
	front := events.State.FirstSeq
	if whole, err := t.readClaims(ctx, x, chunks); err != nil || !whole {
		return err
	}
	if events, err = t.info(ctx, events.Config.Name); err != nil {
		return err
	}
	t.crowded[events.Config.Name] = x.crowd(chunks, front)
	if events.State.FirstSeq != front {
		return nil // it was trimmed meanwhile: look again
	}
	err = t.dropClaims(ctx, x, chunks, front)
	t.countHeld(x)
	return err
}

// cutBack tells whether a stream is not any more what was read: servers that die together lose what they had not written to disk, and give its
// sequences to other messages. What was read is not known of those, so everything is read again.
func (t *trimmer) cutBack(ctx context.Context, read map[*jetstream.StreamInfo]place) (bool, error) {
	for info, p := range read {
		if info.State.LastSeq < p.sequence {
			return true, nil
		}
		if p.sequence == 0 {
			continue
		}
		found, err := t.get(ctx, info.Config.Name, map[string]any{"seq": p.sequence, "no_hdr": true})
		if err != nil {
			return false, err
		}
		if found.Sequence == p.sequence && !found.Time.Equal(p.at) {
			return true, nil
		}
	}
	return false, nil
}

func (t *trimmer) info(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := t.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	return stream.CachedInfo(), nil
}

// readClaims reads what is new: claims, dead letters, events, in this order. It is not whole when there is more.
func (t *trimmer) readClaims(ctx context.Context, x *claimIndex, chunks *jetstream.StreamInfo) (whole bool, err error) {
	until := time.Now().Add(claimScan)
	known := len(x.connectors)
	whole, err = t.readOn(ctx, chunks, []string{contract.ClaimSubjects(x.namespace, x.integration)}, &x.chunks, until, x.chunk)
	if err != nil || !whole {
		return false, err
	}
	if len(x.connectors) > known {
		x.events = place{} // those of another Connector count from now on
	}
	letters, err := t.info(ctx, contract.DeadStream(x.namespace, x.integration))
	if err != nil {
		return false, err
	}
	if whole, err = t.readOn(ctx, letters, letters.Config.Subjects, &x.letters, until, x.letter); err != nil || !whole {
		return false, err
	}
	events, err := t.info(ctx, contract.EventStream(x.namespace, x.integration))
	if err != nil {
		return false, err
	}
	filters := []string{contract.ReplaySubjects(x.namespace, x.integration)}
	for connector := range x.connectors {
		filters = append(filters, contract.ConnectorEventSubjects(x.namespace, x.integration, connector))
	}
	return t.readOn(ctx, events, filters, &x.events, until, x.event)
}

// readOn reads a stream from where it was left to its end.
func (t *trimmer) readOn(ctx context.Context, info *jetstream.StreamInfo, filters []string, at *place, until time.Time, each func(stored)) (whole bool, err error) {
	last := info.State.LastSeq
	sc := scan{stream: info.Config.Name, filters: filters, after: max(at.sequence, info.State.FirstSeq-min(1, info.State.FirstSeq)), last: last, headersOnly: true, batch: countBatch}
	whole, err = t.scan(ctx, sc, until, func(m stored) error {
		each(m)
		*at = place{m.sequence, m.at}
		return nil
	})
	if whole && last > at.sequence {
		*at = place{last, info.State.LastTime}
	}
	return whole, err
}

// chunk of a claim.
func (x *claimIndex) chunk(m stored) {
	connector, id, void, ok := contract.ParseClaimSubject(m.subject)
	if !ok {
		return
	}
	c := x.claims[id]
	if c == nil {
		c = &claimState{connector: connector}
		x.claims[id] = c
		x.connectors[connector] = true
	}
	size, err := strconv.ParseInt(value(m.header, headerMsgSize), 10, 64)
	if err != nil {
		size = 0
	}
	c.bytes, c.void = c.bytes+size, c.void || void
	if m.at.After(c.last) {
		c.last = m.at
	}
}

func (x *claimIndex) letter(m stored) {
	if c, err := contract.ParseClaim(value(m.header, contract.HeaderClaim)); err == nil {
		x.dead[c.ID] = append(x.dead[c.ID], m.sequence)
	}
}

func (x *claimIndex) event(m stored) {
	if c, err := contract.ParseClaim(value(m.header, contract.HeaderClaim)); err == nil {
		x.named[c.ID] = max(x.named[c.ID], m.sequence)
	}
}

// dropClaims that nothing names.
func (t *trimmer) dropClaims(ctx context.Context, x *claimIndex, chunks *jetstream.StreamInfo, front uint64) error {
	for id, sequence := range x.named {
		if sequence < front {
			delete(x.named, id)
			if c := x.claims[id]; c != nil {
				c.wasNamed = true
			}
		}
	}
	now := clock(chunks)
	var stream jetstream.Stream
	for id, c := range x.claims {
		letter, err := t.letterNames(ctx, x, id)
		if err != nil {
			return err
		}
		if x.named[id] > 0 || letter {
			c.wasNamed, c.unnamed = true, time.Time{}
			continue
		}
		if !c.free(now, t.interval) {
			continue
		}
		if stream == nil {
			if stream, err = t.js.Stream(ctx, chunks.Config.Name); err != nil {
				return err
			}
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(contract.ClaimChunks(x.namespace, x.integration, c.connector, id))); err != nil {
			return fmt.Errorf("removing claim %s of Connector %s: %w", id, c.connector, err)
		}
		delete(x.claims, id)
		t.countDropped(x, c.bytes)
		t.log.V(1).Info("a claim check was removed that nothing names", "stream", chunks.Config.Name, "connector", c.connector, "claim", id, "bytes", c.bytes)
	}
	return nil
}

// free tells whether a claim that nothing names will not be named again.
func (c *claimState) free(now time.Time, interval time.Duration) bool {
	switch {
	case c.void && !c.wasNamed:
		return true
	case !c.wasNamed:
		return now.Sub(c.last) > orphanLooks*interval
	case c.unnamed.IsZero():
		c.unnamed = now
	}
	return now.Sub(c.unnamed) > restLooks*interval
}

// letterNames tells whether a dead letter that is still there names a claim.
func (t *trimmer) letterNames(ctx context.Context, x *claimIndex, id string) (bool, error) {
	for len(x.dead[id]) > 0 {
		sequence := x.dead[id][0]
		found, err := t.get(ctx, contract.DeadStream(x.namespace, x.integration), map[string]any{"seq": sequence, "no_hdr": true})
		if err != nil {
			return false, err
		}
		if found.Sequence == sequence {
			return true, nil
		}
		x.dead[id] = x.dead[id][1:]
		if c := x.claims[id]; c != nil {
			c.wasNamed = true
		}
	}
	delete(x.dead, id)
	return false, nil
}

// crowd is the first event to keep so that claims above trimAbove of their room come down to trimTo, as far as events hold them; zero when there
// is room. What a Route still owes, or a dead letter holds, stays.
func (x *claimIndex) crowd(chunks *jetstream.StreamInfo, front uint64) uint64 {
	want, bytes := float64(wantedBytes(chunks)), float64(chunks.State.Bytes)
	if want <= 0 || bytes <= trimAbove*want {
		return 0
	}
	var ids []string
	for id, c := range x.claims {
		switch sequence := x.named[id]; {
		case len(x.dead[id]) > 0:
		case sequence >= front && sequence > 0:
			ids = append(ids, id)
		case sequence > 0, c.wasNamed, c.void:
			bytes -= float64(c.bytes) // it is on its way out already
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(x.named[a], x.named[b]), strings.Compare(a, b))
	})
	goal := uint64(0)
	for _, id := range ids {
		if bytes <= trimTo*want {
			break
		}
		goal, bytes = x.named[id]+1, bytes-float64(x.claims[id].bytes)
	}
	return goal
}
