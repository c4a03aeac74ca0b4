package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// scan is a range of a stream, to be read in order.
type scan struct {
	stream      string
	filters     []string
	after, last uint64
	headersOnly bool
	batch       int
}

// roleReplay is in the metadata of the consumers that read: they hold no place that the trimmer has to respect.
const roleReplay = "replay"

// errBehind says that the server that reads has not all messages yet that the stream's leader has.
var errBehind = errors.New("the server that reads is behind the stream's leader")

// reader reads a scan through a consumer that lives as long as the reader does. Nothing is acknowledged: where it stands is its user's to keep.
type reader struct {
	scan
	s        *session
	consumer jetstream.Consumer
	queue    []stored
	// pending messages that the consumer has still to deliver, at least; expect is the number of its next delivery.
	pending, expect uint64
	position        uint64
}

func (s *session) read(ctx context.Context, sc scan) (*reader, error) {
	r := &reader{scan: sc, s: s, expect: 1, position: sc.after}
	if sc.after >= sc.last || len(sc.filters) == 0 {
		return r, nil
	}
	consumer, err := s.js.CreateConsumer(ctx, sc.stream, jetstream.ConsumerConfig{
		Description: "reads for a Replay", FilterSubjects: sc.filters, AckPolicy: jetstream.AckNonePolicy,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: sc.after + 1, HeadersOnly: sc.headersOnly,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: 30 * time.Second, Metadata: map[string]string{metaRole: roleReplay},
	})
	if err != nil {
		return nil, fmt.Errorf("making a consumer that reads: %w", err)
	}
	r.consumer, r.pending = consumer, consumer.CachedInfo().NumPending
	return r, nil
}

func (r *reader) close(ctx context.Context) {
	if r.consumer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	// If this fails the broker removes the consumer itself, a little later.
	_ = r.s.js.DeleteConsumer(ctx, r.stream, r.consumer.CachedInfo().Name)
}

// next message; ok is false at the end of the range.
func (r *reader) next(ctx context.Context) (m stored, ok bool, err error) {
	if len(r.queue) == 0 {
		if r.consumer == nil || r.position >= r.last {
			return m, false, nil
		}
		if r.pending == 0 {
			return m, false, r.confirmEnd(ctx)
		}
		if err := r.fetch(ctx); err != nil {
			return m, false, err
		}
	}
	m = r.queue[0]
	if m.sequence > r.last {
		return m, false, nil
	}
	r.queue, r.position = r.queue[1:], m.sequence
	return m, true, nil
}

// fetch some of the messages that are known to be there.
func (r *reader) fetch(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	batch, err := r.consumer.Fetch(int(min(uint64(r.batch), r.pending)), jetstream.FetchMaxBytes(readBytes), jetstream.FetchMaxWait(probeTimeout))
	if err != nil {
		return fmt.Errorf("pulling: %w", err)
	}
	r.queue = r.queue[:0]
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("reading where a message comes from: %w", err)
		}
		if meta.Sequence.Consumer != r.expect {
			return fmt.Errorf("%w: delivery %d came instead of %d", nats.ErrTimeout, meta.Sequence.Consumer, r.expect)
		}
		r.expect++
		r.pending = meta.NumPending
		r.queue = append(r.queue, stored{subject: m.Subject(), header: m.Headers(), data: m.Data(), sequence: meta.Sequence.Stream, at: meta.Timestamp})
	}
	if err := batch.Error(); err != nil {
		return fmt.Errorf("pulling: %w", err)
	}
	if len(r.queue) == 0 {
		return fmt.Errorf("%w: nothing came of %d messages", nats.ErrTimeout, r.pending)
	}
	return nil
}

// confirmEnd asks the stream's leader whether there is nothing more in the range: another server's copy may be shorter.
func (r *reader) confirmEnd(ctx context.Context) error {
	for _, filter := range r.filters {
		found, err := r.s.trimmer.get(ctx, r.stream, map[string]any{"seq": r.position + 1, "next_by_subj": filter, "no_hdr": true})
		if err != nil {
			return err
		}
		if found.Sequence > r.position && found.Sequence <= r.last {
			return errBehind
		}
	}
	return nil
}

// scan calls each for every message of a range, until the time or the end of it, which done tells.
func (s *session) scan(ctx context.Context, sc scan, until time.Time, each func(stored) error) (done bool, err error) {
	ctx, cancel := context.WithDeadline(ctx, until.Add(callTimeout))
	defer cancel()
	r, err := s.read(ctx, sc)
	if err != nil {
		return false, err
	}
	defer r.close(ctx)
	for {
		if len(r.queue) == 0 && r.expect > 1 && !time.Now().Before(until) {
			return false, nil
		}
		m, ok, err := r.next(ctx)
		switch {
		case errors.Is(err, errBehind):
			return false, nil
		case err != nil:
			return false, err
		case !ok:
			return true, nil
		}
		if err := each(m); err != nil {
			return false, err
		}
	}
}

// whole message of a stream, from its leader; ok is false when it is not there any more.
func (s *session) whole(ctx context.Context, stream string, sequence uint64) (m stored, ok bool, err error) {
	var answer struct {
		Message *struct {
			Subject  string `json:"subject"`
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
		Error *apiError `json:"error"`
	}
	if err := s.trimmer.request(ctx, "STREAM.MSG.GET."+stream, map[string]any{"seq": sequence}, &answer); err != nil {
		return m, false, err
	}
	switch {
	case answer.Error != nil && answer.Error.Code == 404, answer.Error == nil && answer.Message == nil:
		return m, false, nil
	case answer.Error != nil:
		return m, false, answer.Error
	}
	m = stored{subject: answer.Message.Subject, data: answer.Message.Data, sequence: answer.Message.Sequence}
	if len(answer.Message.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return m, false, fmt.Errorf("headers of message %d: %w", sequence, err)
		}
	}
	return m, true, nil
}
