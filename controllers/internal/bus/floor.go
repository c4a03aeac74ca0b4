package bus

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// consumerPage is what a server lists of consumers. The client library's list leaves Missing out, without which it cannot be known to
// be complete.
type consumerPage struct {
	Total     int      `json:"total"`
	Offset    int      `json:"offset"`
	Missing   []string `json:"missing"`
	Consumers []struct {
		Name   string `json:"name"`
		Config struct {
			Metadata map[string]string `json:"metadata"`
		} `json:"config"`
		AckFloor struct {
			Stream uint64 `json:"stream_seq"`
		} `json:"ack_floor"`
	} `json:"consumers"`
	Error *apiError `json:"error"`
}

// floor is what all consumers of a stream have acknowledged, by this list and the one before, an interval ago. It is not complete when
// either list was not, or the two are not an interval apart.
func (t *trimmer) floor(ctx context.Context, info *jetstream.StreamInfo, state *trimState) (floor uint64, complete bool, err error) {
	now := time.Now()
	if !state.floorAt.IsZero() && now.Sub(state.floorAt) < t.interval/2 {
		return 0, false, nil // too soon for a list that counts
	}
	current, err := t.lowest(ctx, info.Config.Name)
	if err != nil {
		state.floorAt = time.Time{}
		return 0, false, err
	}
	previous, at := state.floor, state.floorAt
	state.floor, state.floorAt = current, now
	if at.IsZero() {
		return 0, false, nil
	}
	return min(current, previous), true, nil
}

// lowest ack floor of a stream's consumers; the highest number there is when there are none, for then nothing is owed.
func (t *trimmer) lowest(ctx context.Context, stream string) (uint64, error) {
	lowest, seen := uint64(math.MaxUint64-1), map[string]bool{}
	for offset := 0; ; {
		var page consumerPage
		if err := t.request(ctx, "CONSUMER.LIST."+stream, map[string]any{"offset": offset}, &page); err != nil {
			return 0, err
		}
		if page.Error != nil {
			return 0, page.Error
		}
		if len(page.Missing) > 0 {
			return 0, fmt.Errorf("consumers %v did not answer", page.Missing)
		}
		for _, c := range page.Consumers {
			seen[c.Name] = true
			if c.Config.Metadata[metaRole] == roleReplay {
				continue // reads history, and is owed nothing
			}
			lowest = min(lowest, c.AckFloor.Stream)
		}
		offset += len(page.Consumers)
		if len(page.Consumers) == 0 || offset >= page.Total {
			break
		}
	}
	handle, err := t.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	if have := handle.CachedInfo().State.Consumers; have != len(seen) {
		return 0, fmt.Errorf("%d consumers were listed of %d", len(seen), have)
	}
	return lowest, nil
}
