package bus

import (
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"
)

// holdTo is the share of max_bytes up to which the trimmer spares what Replays are about to read. Above it live messages come first.
const holdTo = 0.9

// held is what a Replay asks the trimmer to spare: everything after a sequence, for some time.
type held struct {
	after uint64
	until time.Time
}

// hold what comes after a sequence, until a time. A Replay holds one place in a stream.
func (t *trimmer) hold(stream string, replay types.UID, after uint64, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[stream] == nil {
		t.held[stream] = map[types.UID]held{}
	}
	t.held[stream][replay] = held{after, until}
}

// release what a Replay holds.
func (t *trimmer) release(stream string, replay types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held[stream], replay)
}

// heldFrom is the first sequence of a stream that is held.
func (t *trimmer) heldFrom(info *jetstream.StreamInfo, now time.Time) uint64 {
	if float64(info.State.Bytes) > holdTo*float64(wantedBytes(info)) {
		return math.MaxUint64
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	lowest := uint64(math.MaxUint64)
	for replay, h := range t.held[info.Config.Name] {
		if now.After(h.until) {
			delete(t.held[info.Config.Name], replay)
			continue
		}
		lowest = min(lowest, h.after+1)
	}
	return lowest
}
