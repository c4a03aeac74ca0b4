package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

const (
	// maxProduce is how many records wait for their confirmations together.
	maxProduce = 256
	// lookAt is how often a connection that is lost is looked at while somebody waits.
	lookAt = 200 * time.Millisecond
	// margin before the end of an attempt, to say what is wrong.
	margin = 200 * time.Millisecond
)

// sink produces by one client.
type sink struct {
	*dialer
	compression kgo.CompressionCodec
	raw         json.RawMessage
	topic       string // that is looked for; empty where it depends on the message

	turn   sync.Mutex
	client *kgo.Client
	made   proof
	closed bool
}

// NewSink makes a sink of the JSON of the API's KafkaSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if !compressions[o.Compression] {
		return nil, fmt.Errorf("compression %q is not one of None, Gzip, Snappy, LZ4 and Zstd", o.Compression)
	}
	own, err := decodeProduce(o.Produce)
	if err != nil {
		return nil, err
	}
	d, err := newDialer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	s := &sink{dialer: d, raw: o.Produce, compression: codec(o.Compression)}
	if !strings.Contains(own.Topic, "{") {
		s.topic = own.Topic
	}
	return s, nil
}

func codec(name string) kgo.CompressionCodec {
	switch name {
	case "Gzip":
		return kgo.GzipCompression()
	case "Snappy":
		return kgo.SnappyCompression()
	case "LZ4":
		return kgo.Lz4Compression()
	case "Zstd":
		return kgo.ZstdCompression()
	default:
		return kgo.NoCompression()
	}
}

// producer is the present client, or a new one.
func (s *sink) producer() (*kgo.Client, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.closed {
		return nil, sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("%s: the sink is closed", s.endpoint()))
	}
	if s.client != nil && !s.outdated(s.made) {
		return s.client, nil
	}
	client, made, err := s.dialer.client(
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchMaxBytes(maxFrame), kgo.ProducerBatchCompression(s.compression),
		kgo.UnknownTopicRetries(1), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.MaxBufferedRecords(16*maxProduce), kgo.ProduceRequestTimeout(10*time.Second))
	if err != nil {
		return nil, err
	}
	if former := s.client; former != nil {
		go former.Close() // once nobody waits on it any more, or its requests fail
	}
	s.client, s.made = client, made
	return client, nil
}

// drop a client whose cluster is away: what waits in it would arrive long after it has been given up here.
func (s *sink) drop(client *kgo.Client) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.client == client {
		s.client = nil
		go client.Close()
	}
}

// Check asks the cluster, and whether it has the topic.
func (s *sink) Check(ctx context.Context) error {
	client, err := s.producer()
	if err != nil {
		return err
	}
	if s.topic == "" {
		return s.probe(ctx, client)
	}
	return s.probe(ctx, client, s.topic)
}

// Close the connections.
func (s *sink) Close() error {
	s.turn.Lock()
	client := s.client
	s.client, s.closed = nil, true
	s.turn.Unlock()
	if client != nil {
		client.Close()
	}
	return nil
}

// operation produces records.
type operation struct {
	sink    *sink
	topic   *steps.Template
	fixed   bool
	key     *steps.Template // nil: the message's partition key
	headers []headerTemplate
}

type headerTemplate struct {
	name  string
	value *steps.Template
}

// Operation compiles what is produced; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.raw
	}
	o, err := decodeProduce(raw)
	if err != nil {
		return nil, err
	}
	op := &operation{sink: s, fixed: !strings.Contains(o.Topic, "{")}
	if op.topic, err = steps.CompileTemplate(o.Topic); err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	if o.Key != "" {
		if op.key, err = steps.CompileTemplate(o.Key); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
	}
	for name, text := range o.Headers {
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		op.headers = append(op.headers, headerTemplate{name, value})
	}
	slices.SortFunc(op.headers, func(a, b headerTemplate) int { return strings.Compare(a.name, b.name) })
	return op, nil
}

// MaxBatch is what waits for confirmations together.
func (o *operation) MaxBatch() int { return maxProduce }

// Write produces the messages in their order, and waits until all replicas that are in sync have them.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	client, err := o.sink.producer()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && o.sink.lost() != nil {
		err = o.sink.probe(ctx, client) // rather than wait for what does not come
	}
	if err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	inner := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		inner, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
	}
	type answer struct {
		at  int
		err error
	}
	answers := make(chan answer, len(batch))
	waiting := map[int]bool{}
	for i, d := range batch {
		record, err := o.record(d)
		if err != nil {
			results[i] = sdk.Permanent(fmt.Errorf("%s: %w", o.sink.endpoint(), err))
			continue
		}
		waiting[i] = true
		// Not with ctx: when that ends the client library fails everything that waits for the partition, whoever it belongs to.
		client.TryProduce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) { answers <- answer{i, err} })
	}
	look := time.NewTicker(lookAt)
	defer look.Stop()
	for len(waiting) > 0 {
		select {
		case <-look.C:
			if o.sink.lost() == nil {
				continue
			}
			if err := o.sink.probe(inner, client); err != nil && inner.Err() == nil {
				o.sink.drop(client)
				for i := range waiting {
					results[i] = err
				}
				return results
			}
		case a := <-answers:
			delete(waiting, a.at)
			results[a.at] = o.judge(ctx, a.err)
		case <-inner.Done():
			if o.sink.lost() != nil {
				o.sink.drop(client)
			}
			for i := range waiting { // they may be there, or may not
				results[i] = o.late(ctx, inner.Err())
			}
			return results
		}
	}
	return results
}

// late: no answer in time.
func (o *operation) late(ctx context.Context, err error) error {
	if cause := o.sink.lost(); cause != nil && ctx.Err() == nil {
		return o.sink.unavailable(ctx, cause)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s: no answer in time: %w", o.sink.endpoint(), err)
}

// judge what became of a record.
func (o *operation) judge(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.InvalidTopicException),
		errors.Is(err, kerr.InvalidTimestamp):
		return sdk.Permanent(fmt.Errorf("%s: %w", o.sink.endpoint(), err))
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		if o.fixed {
			return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: there is no such topic, %s: %w", o.sink.endpoint(), o.sink.topic, err))
		}
		return sdk.Permanent(fmt.Errorf("%s: there is no such topic: %w", o.sink.endpoint(), err))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return o.late(ctx, err)
	case errors.Is(err, kgo.ErrMaxBuffered):
		return fmt.Errorf("%s: %w", o.sink.endpoint(), err)
	default:
		if cause := o.sink.lost(); cause != nil {
			return o.sink.unavailable(ctx, cause)
		}
		return o.sink.unavailable(ctx, err)
	}
}

// record of a message. An error is the message's own.
func (o *operation) record(d *sdk.Delivery) (*kgo.Record, error) {
	m := d.Message
	topic, err := o.topic.Expand(m, nil)
	if err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	if !validTopic(topic) {
		return nil, fmt.Errorf("topic: %.60q is none", topic)
	}
	record := &kgo.Record{Topic: topic, Value: m.Data}
	if !m.Time.IsZero() {
		record.Timestamp = m.Time
	}
	key := m.PartitionKey
	if o.key != nil {
		if key, err = o.key.Expand(m, nil); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
	}
	if key != "" {
		record.Key = []byte(key)
	}
	add := func(name, value string) {
		if value != "" {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
	}
	add(eventPrefix+"specversion", contract.SpecVersion)
	add(eventPrefix+"id", m.ID)
	add(eventPrefix+"source", m.Source)
	add(eventPrefix+"type", m.Type)
	add(eventPrefix+"subject", m.Subject)
	add(eventPrefix+"partitionkey", m.PartitionKey)
	if !m.Time.IsZero() {
		add(eventPrefix+"time", m.Time.UTC().Format(time.RFC3339Nano))
	}
	add(headerContentType, m.ContentType)
	add(contract.HeaderHistory, m.History)
	// The same for every attempt and every Replay, and another for each destination.
	add("metip-message-id", d.Durable+"/"+d.MessageID)
	for name, value := range m.Headers {
		if name == contract.HeaderTraceParent || name == contract.HeaderTraceState {
			add(name, value)
		} else {
			add(eventPrefix+name, value)
		}
	}
	for i := range o.headers {
		value, err := o.headers[i].value.Expand(m, nil)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", o.headers[i].name, err)
		}
		if !binding.Clean(value) {
			return nil, fmt.Errorf("header %s: the value holds control characters", o.headers[i].name)
		}
		add(o.headers[i].name, value)
	}
	return record, nil
}
