package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/intake"
	"github.com/metip/metip/connectors/systems/internal/oneline"
)

const (
	// maxBatch of records that are published together, and the bytes of their values.
	maxBatch      = 256
	maxBatchBytes = 4 << 20
	// maxFetch is what one answer of a broker holds, as it is stored; a batch that is larger comes alone.
	maxFetch = 1 << 20
	// sessionTimeout is how long the partitions of a pod that has died are nobody's.
	sessionTimeout = 10 * time.Second
	// lookEvery is how often the cluster is asked for a sign of life while nothing comes.
	lookEvery    = 3 * time.Second
	closeTimeout = 5 * time.Second
	maxReason    = 500
)

// source is a member of a consumer group.
type source struct {
	*dialer
	options  sourceOptions
	receiver *receiver
	// stuck: the last record that was looked at is one that the bus cannot take.
	stuck bool
}

// NewSource makes a source of the JSON of the API's KafkaSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o, err := decodeSource(raw)
	if err != nil {
		return nil, err
	}
	c := rt.Config
	if c.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	d, err := newDialer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	if o.Group == "" {
		o.Group = "metip-" + c.Connector.Namespace + "-" + c.Connector.Name
	}
	return &source{dialer: d, options: o, receiver: &receiver{
		Receiver: binding.Receiver{EventType: c.Source.EventType, Marking: c.Connector.Marking}, format: c.Source.Format,
	}}, nil
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	sessions := intake.Sessions{
		Secrets: s.rt.Secrets,
		Session: func(ctx context.Context) (bool, error) { return s.session(ctx, bus, state) },
		Look:    func(ctx context.Context) error { return s.look(ctx, bus, state) },
	}
	sessions.Run(ctx, bus, state)
	return nil
}

// look whether the cluster can be reached, without reading: the source is suspended.
func (s *source) look(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	client, made, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	for errors.Is(bus.Ready(), sdk.ErrSuspended) {
		changed := s.rt.Secrets.Changed()
		if err := s.probe(ctx, client, s.options.Topics...); err != nil {
			return err
		}
		state.System(nil)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if s.outdated(made) {
				return intake.ErrRestart
			}
		case <-time.After(lookEvery):
		}
	}
	return intake.ErrRestart
}

// session is the membership of one client, from its beginning to its end. worked says that records were taken in, or could have been.
func (s *source) session(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (worked bool, err error) {
	offset := kgo.NewOffset().AtStart()
	if s.options.Start == startNow {
		offset = kgo.NewOffset().AtEnd()
	}
	decompressor, err := newDecompressor()
	if err != nil {
		return false, err
	}
	r := &reader{source: s, bus: bus, state: state, gone: make(chan struct{})}
	client, made, err := s.client(
		kgo.ConsumerGroup(s.options.Group), kgo.ConsumeTopics(s.options.Topics...), kgo.ConsumeStartOffset(offset), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(sessionTimeout/4), kgo.RebalanceTimeout(30*time.Second),
		kgo.FetchMaxPartitionBytes(maxFetch), kgo.MaxConcurrentFetches(1), kgo.FetchMaxWait(time.Second),
		kgo.WithDecompressor(decompressor), kgo.WithHooks(r, decompressor))
	if err != nil {
		return false, err
	}
	r.client = client
	defer s.leave(client)
	if err := s.probe(ctx, client, s.options.Topics...); err != nil {
		return false, err
	}
	if !s.stuck {
		state.System(nil)
	}
	inner, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.watch(inner) })
	err = r.work(ctx, made)
	cancel()
	watch.Wait()
	return true, err
}

// leave the group, so that another pod has the partitions at once.
func (s *source) leave(client *kgo.Client) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.AllowRebalance()
		client.CloseAllowingRebalance()
	}()
	select {
	case <-ended:
	case <-time.After(closeTimeout): // the cluster is away; the session times out there
	}
}

// reader is the source as one client.
type reader struct {
	*source
	bus    sdk.Publisher
	state  sdk.Reporter
	client *kgo.Client

	// gone is closed when the cluster is away, or does not let us in any more; cause is why, and set before.
	gone  chan struct{}
	cause error

	mu sync.Mutex
	// unfit is why the group does not take us in.
	unfit error
}

// watch the cluster until the session is over. The client library would try again for ever, without a word.
func (r *reader) watch(ctx context.Context) {
	looked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery / 6):
		}
		r.mu.Lock()
		err := r.unfit
		r.mu.Unlock()
		switch {
		case err != nil:
			err = r.unavailable(ctx, fmt.Errorf("group %s: %w", r.options.Group, err))
		case r.lost() == nil && time.Since(looked) < lookEvery:
			continue
		default:
			err = r.probe(ctx, r.client, r.options.Topics...)
			looked = time.Now()
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.cause = err
			close(r.gone)
			r.state.System(err) // the bus may be away too, and hold up who works
			return
		}
	}
}

// OnGroupManageError implements kgo.HookGroupManageError.
func (r *reader) OnGroupManageError(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unfit = err
}

// work until the session is over.
func (r *reader) work(ctx context.Context, made proof) error {
	changed := r.rt.Secrets.Changed()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.gone:
			return r.cause
		case <-changed:
			if r.outdated(made) {
				return intake.ErrRestart
			}
			changed = r.rt.Secrets.Changed()
		default:
		}
		if errors.Is(r.bus.Ready(), sdk.ErrSuspended) {
			return intake.ErrRestart
		}
		records, err := r.poll(ctx)
		if err != nil {
			return err
		}
		for len(records) > 0 {
			n := cut(records)
			if err := r.settle(ctx, records[:n]); err != nil {
				return err
			}
			records = records[n:]
		}
		r.client.AllowRebalance()
	}
}

// poll what has come, for a moment.
func (r *reader) poll(ctx context.Context) ([]*kgo.Record, error) {
	inner, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	fetches := r.client.PollRecords(inner, maxBatch)
	var failure error
	fetches.EachError(func(topic string, partition int32, err error) {
		var large *kgo.ErrDecompressTooLarge
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, errExpanded):
		case errors.As(err, &large):
			failure = r.topicError(topic, fmt.Errorf("partition %d: the batch at offset %d expands to more than %d bytes; move the group's offset to %d to pass over it",
				partition, large.Offset, maxExpandedBatch, large.NextOffset))
		case topic != "":
			failure = r.topicError(topic, err)
		default:
			failure = r.unavailable(ctx, err)
		}
	})
	if failure != nil {
		return nil, failure
	}
	return fetches.Records(), ctx.Err()
}

// cut is how many records are published together.
func cut(records []*kgo.Record) int {
	size := 0
	for i, record := range records {
		if size += len(record.Value); i > 0 && size > maxBatchBytes {
			return i
		}
	}
	return len(records)
}

// settle records: on the bus, or where those go that it cannot take, and then committed.
func (r *reader) settle(ctx context.Context, records []*kgo.Record) error {
	settler := intake.Settler[*kgo.Record]{
		Bus: r.bus, Lost: r.gone, Cause: func() error { return r.cause }, Refuse: r.refuse, Recovered: r.recovered,
		Acknowledge: func(batch []item) error { return r.commit(ctx, batch) },
	}
	batch := make([]item, len(records))
	for i, record := range records {
		batch[i].Delivery = record
		batch[i].Message, batch[i].Err = r.receiver.message(record)
	}
	return settler.Settle(ctx, batch)
}

// item is a record and its message, or why there can be none.
type item = intake.Item[*kgo.Record]

// commit the offsets of records that are settled. What cannot be committed, because the partition is another member's by now, or the cluster is away, comes
// again under the same ids.
func (r *reader) commit(ctx context.Context, batch []item) error {
	records := make([]*kgo.Record, len(batch))
	for i := range batch {
		records[i] = batch[i].Delivery
		batch[i] = item{}
	}
	inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := r.client.CommitRecords(inner, records...); err != nil {
		if inner.Err() != nil {
			if cause := r.lost(); cause != nil {
				err = cause
			}
		}
		return r.unavailable(ctx, fmt.Errorf("group %s: commit: %w", r.options.Group, err))
	}
	return nil
}

func (r *reader) recovered() {
	if r.stuck {
		r.stuck = false
		r.state.System(nil)
	}
}

// refuse a record that the bus can never take: to the dead letters of the options or, where they name none, the source stops at it.
func (r *reader) refuse(ctx context.Context, i *item) error {
	record := i.Delivery
	what := fmt.Sprintf("%s: topic %s, partition %d, offset %d cannot be taken", r.endpoint(), record.Topic, record.Partition, record.Offset)
	if r.options.DeadLetter == "" {
		r.stuck = true
		return intake.HeldError{Err: sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s, and the source waits at it: %w (set deadLetter, or move the group's offset)", what, i.Err))}
	}
	dead := &kgo.Record{Topic: r.options.DeadLetter, Key: record.Key, Value: record.Value, Headers: append(record.Headers[:len(record.Headers):len(record.Headers)],
		kgo.RecordHeader{Key: "metip-dead-reason", Value: []byte(oneline.Excerpt(i.Err.Error(), maxReason))},
		kgo.RecordHeader{Key: "metip-dead-record", Value: fmt.Appendf(nil, "%s/%d/%d", record.Topic, record.Partition, record.Offset)})}
	inner, cancel := intake.Outlive(ctx)
	defer cancel()
	if err := r.client.ProduceSync(inner, dead).FirstErr(); err != nil {
		r.stuck = true
		return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %w; and neither can deadLetter: %w", what, i.Err, err))
	}
	r.rt.Log.Warn("a record was put to the dead letters of its topic", "topic", record.Topic, "partition", record.Partition, "offset", record.Offset, "error", i.Err)
	r.recovered()
	return nil
}
