package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
)

// Replays is the work that Replays need. A Replay is planned once, counted, and copied in short runs; each of them can be broken off at any
// time, and nothing is stored twice: what a run has to know is in ReplayProgress, and RecoverReplay finds in the stream what a run
// that was killed had stored and nobody had written down.
type Replays interface {
	// PlanReplay finds the range that a Replay covers. What is stored later is not in it.
	PlanReplay(ctx context.Context, r Replay) (ReplayPlan, error)
	// CountReplay looks through the range for some time; done says that it came to the end.
	CountReplay(ctx context.Context, r Replay, p ReplayPlan, c *ReplayCount, until time.Time) (done bool, err error)
	// RecoverReplay learns which copies behind progress.LastCopy are the Replay's.
	RecoverReplay(ctx context.Context, r Replay, p ReplayPlan, progress *ReplayProgress) error
	// CopyReplay copies, no faster than the pace, until the time or the end of the range. What it has done is in progress, also when it fails.
	// ErrFull is wrapped when the event stream has no room for copies, and ErrReplaced, by all of these, when the stream is another.
	CopyReplay(ctx context.Context, r Replay, p ReplayPlan, progress *ReplayProgress, pace *Pace, until time.Time) error
	// ClearReplay removes, for some time, the dead letters that the Replay selects, with sequences from after+1 to through: all of them must
	// have been copied. It returns how far it came.
	ClearReplay(ctx context.Context, r Replay, p ReplayPlan, after, through uint64, until time.Time) (cleared uint64, err error)
}

// Errors of Replays.
var (
	// ErrFull says that a stream has no room.
	ErrFull = errors.New("the stream is full")
	// ErrReplaced says that a stream is not the one that was planned for.
	ErrReplaced = errors.New("the stream was made anew")
)

// Replay says which stored messages are copied, and for which destination.
type Replay struct {
	Namespace, Integration, Route, Destination string
	Name                                       string
	UID                                        types.UID
	// Filters of the events that the Route reads.
	Filters []string
	// Dead: the destination's dead letters instead of events.
	Dead bool
	// First and Last bound the sequence, Since (inclusive) and Until (exclusive) the time of storing; zero means no bound.
	First, Last  uint64
	Since, Until time.Time
	// IDs are those of the source (ce-id) or of the bus; Reasons are those of dead letters. None means any.
	IDs, Reasons []string
}

// ReplayPlan is what a Replay covers, found once at its start.
type ReplayPlan struct {
	// Stream that is read, and when it was made: one that is made anew numbers its messages anew.
	Stream  string
	Created time.Time
	// First and Last sequence; Last is below First when there is nothing.
	First, Last uint64
	// After this sequence of the event stream there can be copies.
	After uint64
	// Trimmed sequences that were asked for are not stored any more; only where the range was given in sequences.
	Trimmed uint64
	// Oldest message that is stored, by the time when it was; zero where there is none.
	Oldest time.Time
}

// ReplayCount is a count under way. The zero value begins one.
type ReplayCount struct {
	// Matched messages so far, and Through which sequence.
	Matched, Through uint64
	found            map[string]bool
}

// Missing ids of those that a Replay names.
func (c *ReplayCount) Missing(r Replay) uint64 {
	missing := uint64(0)
	for _, id := range r.IDs {
		if !c.found[id] {
			missing++
		}
	}
	return missing
}

// ReplayProgress of a Replay. The exported part is written down; the rest is found again by RecoverReplay.
type ReplayProgress struct {
	// Position is the sequence up to which everything that matches has its copy.
	Position uint64
	// Sent copies up to Position.
	Sent uint64
	// LastCopy is the sequence in the event stream behind which copies may be that Sent does not count.
	LastCopy uint64

	// ahead are sequences beyond Position that have their copy, and newest is the last of all copies.
	ahead  map[uint64]struct{}
	newest uint64
}

// replayReserve is the share of the event stream that copies may fill it to: a Replay must never make sources wait.
const replayReserve = 0.85

// Bounds of one step of a Replay.
const (
	// readBatch and readBytes are how much is read at a time, countBatch how many headers.
	readBatch, countBatch = 256, 2000
	readBytes             = 2 * (contract.MaxMessageSize + contract.MaxHeaderSize)
	// copyBatch and copyBytes are how much is published before the confirmations are awaited.
	copyBatch, copyBytes = 256, 8 << 20
	// storedOverhead is what a stream adds to each message, about.
	storedOverhead = 64
	// copyTimeout is how long a confirmation may take.
	copyTimeout = 5 * time.Second
	// holdFor is how long the trimmer spares what a Replay is about to read, without hearing of it.
	holdFor = time.Minute
)

// stream that a Replay reads, and the subjects there.
func (r Replay) stream() (name string, filters []string) {
	if r.Dead {
		return contract.DeadStream(r.Namespace, r.Integration), []string{contract.DeadSubjects(r.Namespace, r.Integration, r.Route, r.Destination)}
	}
	return contract.EventStream(r.Namespace, r.Integration), r.Filters
}

// PlanReplay implements Replays.
func (s *session) PlanReplay(ctx context.Context, r Replay) (ReplayPlan, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name, _ := r.stream()
	plan, err := s.planReplay(ctx, r, name)
	if err != nil {
		return plan, fmt.Errorf("stream %s: %w", name, explain(err))
	}
	return plan, nil
}

func (s *session) planReplay(ctx context.Context, r Replay, name string) (ReplayPlan, error) {
	info, err := s.leaderInfo(ctx, name)
	if err != nil {
		return ReplayPlan{}, err
	}
	p := ReplayPlan{Stream: name, Created: info.Created, First: max(info.State.FirstSeq, 1), Last: info.State.LastSeq, After: info.State.LastSeq}
	if info.State.Msgs > 0 {
		p.Oldest = info.State.FirstTime
	}
	if r.First > 0 {
		if r.First < p.First {
			p.Trimmed = min(p.First, bound(r.Last)) - r.First
		}
		p.First = max(p.First, r.First)
	}
	if r.Last > 0 {
		p.Last = min(p.Last, r.Last)
	}
	if !r.Since.IsZero() {
		since, err := s.trimmer.firstSince(ctx, info, r.Since)
		if err != nil {
			return p, err
		}
		p.First = max(p.First, since)
	}
	if !r.Until.IsZero() {
		until, err := s.trimmer.firstSince(ctx, info, r.Until)
		if err != nil {
			return p, err
		}
		p.Last = min(p.Last, until-1)
	}
	if r.Dead {
		events, err := s.leaderInfo(ctx, contract.EventStream(r.Namespace, r.Integration))
		if err != nil {
			return p, err
		}
		p.After = events.State.LastSeq
	}
	return p, nil
}

// bound is a last sequence plus one; the highest number there is for none.
func bound(last uint64) uint64 {
	if last == 0 {
		return ^uint64(0)
	}
	return last + 1
}

func (s *session) leaderInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// CountReplay implements Replays.
func (s *session) CountReplay(ctx context.Context, r Replay, p ReplayPlan, c *ReplayCount, until time.Time) (bool, error) {
	if c.found == nil {
		c.Through, c.found = p.First-1, map[string]bool{}
	}
	s.holdReplay(r, p, c.Through)
	_, filters := r.stream()
	choose := r.chooser()
	if err := s.same(ctx, p); err != nil {
		return false, err
	}
	done, err := s.scan(ctx, scan{stream: p.Stream, filters: filters, after: c.Through, last: p.Last, headersOnly: true, batch: countBatch}, until, func(m stored) error {
		if id, ok := choose(m); ok {
			c.Matched++
			if id != "" {
				c.found[id] = true
			}
		}
		c.Through = m.sequence
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("reading stream %s: %w", p.Stream, explain(err))
	}
	return done, nil
}

// same checks that the stream is the one that was planned for. Where the plan was written down the time has no fractions of a second any more.
func (s *session) same(ctx context.Context, p ReplayPlan) error {
	info, err := s.leaderInfo(ctx, p.Stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", p.Stream, explain(err))
	}
	if !info.Created.Truncate(time.Second).Equal(p.Created.Truncate(time.Second)) {
		return fmt.Errorf("stream %s: %w at %s", p.Stream, ErrReplaced, info.Created.UTC().Format(time.RFC3339))
	}
	return nil
}

// holdReplay keeps what a Replay has not read from being trimmed.
func (s *session) holdReplay(r Replay, p ReplayPlan, position uint64) {
	switch {
	case r.Dead:
	case position < p.Last:
		s.trimmer.hold(p.Stream, r.UID, position, time.Now().Add(holdFor))
	default:
		s.trimmer.release(p.Stream, r.UID)
	}
}
