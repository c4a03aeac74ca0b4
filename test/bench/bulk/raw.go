package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/test/bench/record"
)

func connect() (*nats.Conn, error) {
	return nats.Connect(*url, nats.UserCredentials(*creds), nats.RootCAs(*ca), nats.CustomInboxPrefix(*inbox))
}

// rawBatch is the most that a server takes in one atomic batch.
const rawBatch = 1000

// newBatches publishes atomic batches, one after the other: bodies and what the protocol needs.
func newBatches(context.Context) (role, error) {
	nc, err := connect()
	if err != nil {
		return role{}, err
	}
	return role{publish: func(ctx context.Context, j job) (n int64, err error) {
		begun := time.Now()
		for int(n) < j.messages && time.Since(begun) < j.lasts && err == nil {
			size := min(rawBatch, j.messages-int(n))
			if err = publishBatch(ctx, nc, j.first+int(n), size); err == nil {
				n += int64(size)
			}
		}
		return n, err
	}}, nil
}

func publishBatch(ctx context.Context, nc *nats.Conn, first, size int) error {
	id := nuid.Next()
	for i := range size {
		m := &nats.Msg{Subject: *subject, Data: record.Body(first + i), Header: nats.Header{
			"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(i + 1)},
		}}
		if i < size-1 {
			if err := nc.PublishMsg(m); err != nil {
				return err
			}
			continue
		}
		m.Header["Nats-Batch-Commit"] = []string{"1"}
		reply, err := nc.RequestMsgWithContext(ctx, m)
		if err != nil {
			return err
		}
		var ack struct {
			BatchSize int                 `json:"count"`
			Error     *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(reply.Data, &ack); err != nil {
			return err
		}
		if ack.Error != nil {
			return ack.Error
		}
		if ack.BatchSize != size {
			return fmt.Errorf("%d of %d messages of a batch were stored", ack.BatchSize, size)
		}
	}
	return nil
}

// newAsync publishes one by one without waiting for each confirmation, within the client's own bound.
func newAsync(context.Context) (role, error) {
	nc, err := connect()
	if err != nil {
		return role{}, err
	}
	var settled sync.WaitGroup
	var failed atomic.Int64
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(10*time.Second),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
			slog.Error("a message was not confirmed", "error", err)
			failed.Add(1)
			settled.Done()
		}), jetstream.WithPublishAsyncAckHandler(func(jetstream.JetStream, *nats.Msg, *jetstream.PubAck) { settled.Done() }))
	if err != nil {
		return role{}, err
	}
	return role{publish: func(_ context.Context, j job) (n int64, err error) {
		for begun := time.Now(); int(n) < j.messages && time.Since(begun) < j.lasts; n++ {
			settled.Add(1)
			if _, err := js.PublishAsync(*subject, record.Body(j.first+int(n))); err != nil {
				settled.Done()
				return n, err
			}
		}
		settled.Wait()
		if failed.Load() > 0 {
			err = fmt.Errorf("%d messages were not confirmed", failed.Load())
		}
		return n, err
	}}, nil
}

// newPull pulls and acknowledges.
func newPull(ctx context.Context) (role, error) {
	nc, err := connect()
	if err != nil {
		return role{}, err
	}
	js, err := jetstream.NewWithAPIPrefix(nc, contract.APIPrefix)
	if err != nil {
		return role{}, err
	}
	consumer, err := js.Consumer(ctx, *stream, *durable)
	if err != nil {
		return role{}, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return role{}, err
	}
	c := &counter{}
	return role{drained: c.drained, run: func(ctx context.Context) error {
		defer context.AfterFunc(ctx, messages.Stop)()
		for {
			m, err := messages.Next()
			if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			if strings.HasPrefix(m.Subject(), "evt.") {
				c.count(1)
			}
			if err := m.Ack(); err != nil {
				return err
			}
		}
	}}, nil
}
