package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

// How a full stream is made to take a mark.
const (
	// minReserve is what it is raised by, at least.
	minReserve = 1 << 20
	// markAttempts on the raised stream, whose sources compete for the reserve.
	markAttempts = 20
	// maxMarks that are remembered of a stream: of some hours.
	maxMarks = 2000
)

// markBody must not be empty: the border between the accounts takes an answer without headers and body for the last one, and
// forgets the way back to the sink that pulls; what the broker sends after that is lost until AckWait.
var markBody = []byte("mark")

// mark publishes a mark when the stream has changed since the last.
func (t *trimmer) mark(ctx context.Context, info *jetstream.StreamInfo, state *trimState) error {
	if info.State.Consumers == 0 || info.State.LastSeq == 0 {
		return nil
	}
	subject := contract.MarkSubject(info.Config.Metadata[metaNamespace], info.Config.Metadata[metaIntegration])
	if state.mark == 0 {
		if last, err := t.lastMark(ctx, info.Config.Name, subject); err != nil {
			return err
		} else if last > 0 {
			state.mark = last
			t.remember(info, last)
		}
	}
	if state.mark == info.State.LastSeq {
		return nil
	}
	ack, err := t.js.Publish(ctx, subject, markBody)
	if isFull(err) {
		ack, err = t.markFull(ctx, info, subject)
	}
	if err != nil {
		return fmt.Errorf("publishing a mark: %w", err)
	}
	state.mark = ack.Sequence
	t.remember(info, ack.Sequence)
	return nil
}

// sequences of marks in a stream, in order.
type sequences []uint64

// above a sequence, how many there are.
func (s sequences) above(sequence uint64) uint64 {
	at, _ := slices.BinarySearch(s, sequence+1)
	return uint64(len(s) - at)
}

// remember a mark that the stream holds, so that it is not taken for a message that waits; and forget those that are gone, or too many.
func (t *trimmer) remember(info *jetstream.StreamInfo, sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.marks[info.Config.Name]
	if n := len(known); n > 0 && sequence <= known[n-1] { // the stream was made anew
		known = nil
	}
	gone, _ := slices.BinarySearch(known, info.State.FirstSeq)
	gone = max(gone, len(known)+1-maxMarks)
	// A copy, for whoever has asked reads the former.
	t.marks[info.Config.Name] = append(slices.Clone(known[gone:]), sequence)
}

// marksOf a stream that this operator has put there.
func (t *trimmer) marksOf(stream string) sequences {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.marks[stream]
}

func (t *trimmer) forgetMarks(stream string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.marks, stream)
}

func (t *trimmer) lastMark(ctx context.Context, stream, subject string) (uint64, error) {
	found, err := t.get(ctx, stream, map[string]any{"last_by_subj": subject})
	return found.Sequence, err
}

// markFull gives a full stream a reserve, so that it takes a mark. Sources may eat it up, so it is tried a few times.
func (t *trimmer) markFull(ctx context.Context, info *jetstream.StreamInfo, subject string) (*jetstream.PubAck, error) {
	name := info.Config.Name
	reserve := max(minReserve, wantedBytes(info)/100)
	if info.Config.MaxBytes >= wantedBytes(info)+4*reserve {
		return nil, fmt.Errorf("stream %s is full, its reserve included", name)
	}
	t.setRaised(name, true)
	cfg := info.Config
	cfg.MaxBytes = max(cfg.MaxBytes, int64(info.State.Bytes)) + reserve
	if _, err := t.js.UpdateStream(ctx, cfg); err != nil {
		return nil, fmt.Errorf("raising max_bytes: %w", err)
	}
	info.Config.MaxBytes = cfg.MaxBytes
	var ack *jetstream.PubAck
	var err error
	for range markAttempts {
		if ack, err = t.js.Publish(ctx, subject, markBody); !isFull(err) {
			break
		}
	}
	return ack, err
}

// lower a raised stream to what is wanted, once it holds less than that. A leftover of an earlier process is lowered too.
func (t *trimmer) lower(ctx context.Context, info *jetstream.StreamInfo) error {
	name := info.Config.Name
	if info.Config.MaxBytes > wantedBytes(info) {
		var err error
		if info, err = t.info(ctx, name); err != nil {
			return err
		}
	}
	want := wantedBytes(info)
	if info.Config.MaxBytes > want {
		if int64(info.State.Bytes) >= want {
			return nil
		}
		cfg := info.Config
		cfg.MaxBytes = want
		if _, err := t.js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("lowering max_bytes: %w", err)
		}
	}
	t.setRaised(name, false)
	t.setRoom(name, roomWanted, want)
	return nil
}

// wantedBytes is the size that the Integration asks for.
func wantedBytes(info *jetstream.StreamInfo) int64 {
	if n, err := strconv.ParseInt(info.Config.Metadata[metaMaxBytes], 10, 64); err == nil && n > 0 {
		return n
	}
	return info.Config.MaxBytes
}

func isFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeStoreFailed
}
