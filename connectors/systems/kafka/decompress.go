package kafka

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// maxExpanded is how many bytes the batches of one answer may become, beside the last of them; where more have come, they are fetched again.
	maxExpanded = 8 << 20
	// maxExpandedBatch is how many bytes one batch may become.
	maxExpandedBatch = 2 * maxFrame
)

// errExpanded says that the rest of an answer is left for the next.
var errExpanded = errors.New("the answer holds more than is expanded at a time")

// decompressor bounds what an answer becomes in memory: the client library expands every batch of an answer before it hands out the first record, and a
// producer can make megabytes of a few bytes.
//
// The library drops a batch that cannot be expanded, and what comes behind it, if the answer had one before it in that partition, and fetches it again;
// otherwise the error is of the partition, and poll overlooks it.
type decompressor struct {
	kgo.Decompressor
	expanded atomic.Int64
}

// newDecompressor is the library's own, which refuses a batch that becomes more than maxExpandedBatch, with a bound for an answer. The library bounds its
// own only where it makes it itself, for a client: so one is made, which never connects.
func newDecompressor() (*decompressor, error) {
	client, err := kgo.NewClient(kgo.DisableClientMetrics(), kgo.MaxDecompressBatchBytes(maxExpandedBatch))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	inner, ok := client.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("the client library has no decompressor")
	}
	return &decompressor{Decompressor: inner}, nil
}

// Decompress implements kgo.Decompressor.
func (d *decompressor) Decompress(batch []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if d.expanded.Load() >= maxExpanded {
		return nil, errExpanded
	}
	out, err := d.Decompressor.Decompress(batch, codec)
	d.expanded.Add(int64(len(out)))
	return out, err
}

// OnBrokerRead implements kgo.HookBrokerRead: there is never more than one answer with records, in flight or not yet polled, so another begins.
func (d *decompressor) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == fetchKey {
		d.expanded.Store(0)
	}
}

const fetchKey = int16(kmsg.Fetch)
