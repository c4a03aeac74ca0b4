package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

// RecoverReplay implements Replays.
func (s *session) RecoverReplay(ctx context.Context, r Replay, p ReplayPlan, progress *ReplayProgress) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	if err := s.same(ctx, p); err != nil {
		return err
	}
	s.holdReplay(r, p, progress.Position)
	name := contract.EventStream(r.Namespace, r.Integration)
	if err := s.recoverReplay(ctx, r, name, progress); err != nil {
		return fmt.Errorf("looking for copies in stream %s: %w", name, explain(err))
	}
	return nil
}

func (s *session) recoverReplay(ctx context.Context, r Replay, name string, progress *ReplayProgress) error {
	info, err := s.leaderInfo(ctx, name)
	if err != nil {
		return err
	}
	progress.ahead, progress.newest = map[uint64]struct{}{}, progress.LastCopy
	done, err := s.scan(ctx, scan{
		stream: name, filters: []string{contract.ReplayFilter(r.Namespace, r.Integration, r.Route, r.Destination)},
		after: progress.LastCopy, last: info.State.LastSeq, headersOnly: true, batch: countBatch,
	}, time.Now().Add(callTimeout), func(m stored) error {
		if seq, ok := contract.ParseReplayMessageID(string(r.UID), value(m.header, headerMsgID)); ok {
			progress.newest = m.sequence
			if seq > progress.Position {
				progress.ahead[seq] = struct{}{}
			}
		}
		return nil
	})
	if err == nil && !done {
		err = errBehind
	}
	return err
}

// copier is one run of a Replay.
type copier struct {
	s        *session
	replay   Replay
	plan     ReplayPlan
	progress *ReplayProgress
	pace     *Pace
	until    time.Time
	reader   *reader
	choose   func(stored) (string, bool)
	// room for copies in the event stream, in bytes, when it was looked at last.
	room int64
}

// item is a message that is to be copied; done says that it has its copy.
type item struct {
	sequence uint64
	out      *nats.Msg
	future   jetstream.PubAckFuture
	done     bool
}

// CopyReplay implements Replays.
func (s *session) CopyReplay(ctx context.Context, r Replay, p ReplayPlan, progress *ReplayProgress, pace *Pace, until time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, until.Add(callTimeout))
	defer cancel()
	if err := s.same(ctx, p); err != nil {
		return err
	}
	c := &copier{s: s, replay: r, plan: p, progress: progress, pace: pace, until: until, choose: r.chooser()}
	if err := c.run(ctx); err != nil && !errors.Is(err, errBehind) {
		return fmt.Errorf("copying from stream %s: %w", p.Stream, explain(err))
	}
	return nil
}

func (c *copier) run(ctx context.Context) error {
	c.hold()
	if c.progress.Position >= c.plan.Last {
		return nil
	}
	if err := c.makeRoom(ctx); err != nil {
		return err
	}
	n := c.wait(ctx)
	if n == 0 {
		return ctx.Err()
	}
	_, filters := c.replay.stream()
	var err error
	c.reader, err = c.s.read(ctx, scan{
		stream: c.plan.Stream, filters: filters, after: c.progress.Position, last: c.plan.Last, batch: readBatch,
		headersOnly: len(c.replay.IDs) > 0, // most of what is read has another id
	})
	if err != nil {
		return err
	}
	defer c.reader.close(ctx)
	for ; n > 0; n = c.wait(ctx) {
		items, through, end, err := c.gather(ctx, n)
		if err != nil && len(items) == 0 {
			return err
		}
		if failed := c.put(ctx, items); failed != nil {
			return failed
		}
		if c.progress.Position = max(c.progress.Position, through); end {
			c.progress.Position = c.plan.Last
		}
		c.hold()
		switch {
		case err != nil:
			return err
		case end, !time.Now().Before(c.until):
			return nil
		}
		if err := c.makeRoom(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *copier) hold() { c.s.holdReplay(c.replay, c.plan, c.progress.Position) }

// wait for the pace; zero when the time of the run is over before.
func (c *copier) wait(ctx context.Context) int {
	for {
		n, wait := c.pace.take(time.Now())
		if n > 0 {
			return n
		}
		if time.Now().Add(wait).After(c.until) {
			return 0
		}
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(wait):
		}
	}
}

// gather reads on until there are n messages to copy, or enough bytes, or the time or the range is over. through is how far it read.
func (c *copier) gather(ctx context.Context, n int) (items []item, through uint64, end bool, err error) {
	through = c.progress.Position
	limit, size := min(copyBytes, c.room), int64(0)
	defer func() { c.room -= size }()
	for fresh := 0; fresh < n && size < limit; {
		if len(c.reader.queue) == 0 && !time.Now().Before(c.until) && (len(items) > 0 || through > c.progress.Position) {
			return items, through, false, nil
		}
		m, ok, err := c.reader.next(ctx)
		if err != nil || !ok {
			return items, through, err == nil, err
		}
		if _, chosen := c.choose(m); !chosen {
			through = m.sequence
			continue
		}
		if _, done := c.progress.ahead[m.sequence]; done {
			items, through = append(items, item{sequence: m.sequence, done: true}), m.sequence
			continue
		}
		if c.reader.headersOnly {
			if m, ok, err = c.s.whole(ctx, c.plan.Stream, m.sequence); err != nil {
				return items, through, false, err
			} else if !ok { // trimmed a moment ago
				continue
			}
		}
		out := c.replay.copyOf(m)
		items, through = append(items, item{sequence: m.sequence, out: out}), m.sequence
		size += int64(out.Size() + storedOverhead)
		fresh++
	}
	return items, through, false, nil
}

// put copies into the stream and waits until the broker has confirmed them. The progress is up to the first that it has not.
func (c *copier) put(ctx context.Context, items []item) error {
	var failed error
	for i := range items {
		it := &items[i]
		if it.done {
			continue
		}
		if it.future, failed = c.s.copies.PublishMsgAsync(it.out); failed != nil {
			break
		}
		c.pace.used(1)
	}
	whole := true
	for i := range items {
		it := &items[i]
		if err := c.confirm(ctx, it); err != nil && failed == nil {
			failed = fmt.Errorf("copy of message %d: %w", it.sequence, err)
		}
		whole = whole && it.done
		switch {
		case whole:
			c.progress.Position = it.sequence
			c.progress.Sent++
			delete(c.progress.ahead, it.sequence)
		case it.done:
			c.progress.ahead[it.sequence] = struct{}{}
		}
	}
	if len(c.progress.ahead) == 0 {
		c.progress.LastCopy = c.progress.newest
	}
	if isFull(failed) {
		return fmt.Errorf("%w: %w", ErrFull, failed)
	}
	return failed
}

// confirm waits for the confirmation of one copy, if one is under way.
func (c *copier) confirm(ctx context.Context, it *item) error {
	if it.done || it.future == nil {
		return nil
	}
	select {
	case ack := <-it.future.Ok():
		it.done = true
		c.progress.newest = max(c.progress.newest, ack.Sequence)
		return nil
	case err := <-it.future.Err():
		if errors.Is(err, jetstream.ErrAsyncPublishTimeout) {
			return fmt.Errorf("%w: %w", nats.ErrTimeout, err)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// makeRoom looks whether the event stream has room for copies that sources do not need, once what it found last is used up.
func (c *copier) makeRoom(ctx context.Context) error {
	if c.room > 0 {
		return nil
	}
	info, err := c.s.leaderInfo(ctx, contract.EventStream(c.replay.Namespace, c.replay.Integration))
	if err != nil {
		return err
	}
	c.room = int64(replayReserve*float64(wantedBytes(info))) - int64(info.State.Bytes)
	if c.room <= 0 {
		return fmt.Errorf("%w: %d of %d bytes are used, and above %.0f %% what is left is the sources'",
			ErrFull, info.State.Bytes, wantedBytes(info), 100*replayReserve)
	}
	return nil
}

// clearWorkers remove dead letters at the same time, clearBatch at a time.
const clearWorkers, clearBatch = 8, 64

// ClearReplay implements Replays.
func (s *session) ClearReplay(ctx context.Context, r Replay, p ReplayPlan, after, through uint64, until time.Time) (uint64, error) {
	ctx, cancel := context.WithDeadline(ctx, until.Add(callTimeout))
	defer cancel()
	if err := s.same(ctx, p); err != nil {
		return after, err
	}
	stream, err := s.js.Stream(ctx, p.Stream)
	if err != nil {
		return after, fmt.Errorf("stream %s: %w", p.Stream, explain(err))
	}
	var letters []stored
	cleared, read := after, after
	flush := func() error {
		if err := purgeAll(ctx, stream, letters); err != nil {
			return err
		}
		letters, cleared = letters[:0], read
		return nil
	}
	_, filters := r.stream()
	choose := r.chooser()
	done, err := s.scan(ctx, scan{stream: p.Stream, filters: filters, after: after, last: through, headersOnly: true, batch: countBatch}, until, func(m stored) error {
		read = m.sequence
		if _, ok := choose(m); !ok {
			return nil
		}
		if letters = append(letters, m); len(letters) < clearBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return cleared, fmt.Errorf("removing dead letters from stream %s: %w", p.Stream, explain(err))
	}
	if done {
		cleared = through
	}
	return cleared, nil
}

// purgeAll removes messages, each only if it is still what its sequence and its subject say.
func purgeAll(ctx context.Context, stream jetstream.Stream, letters []stored) error {
	var wg sync.WaitGroup
	errs := make([]error, clearWorkers)
	for w := range clearWorkers {
		wg.Go(func() {
			for i := w; i < len(letters) && errs[w] == nil; i += clearWorkers {
				errs[w] = stream.Purge(ctx, jetstream.WithPurgeSubject(letters[i].subject), jetstream.WithPurgeSequence(letters[i].sequence+1))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
