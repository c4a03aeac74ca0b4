package engine

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// countingSink confirms everything at once.
type countingSink struct {
	n    atomic.Int64
	want int64
	done chan struct{}
	max  int
}

func (c *countingSink) Operation(json.RawMessage) (sdk.Operation, error) { return c, nil }
func (c *countingSink) Check(context.Context) error                      { return nil }
func (c *countingSink) Close() error                                     { return nil }
func (c *countingSink) MaxBatch() int                                    { return c.max }
func (c *countingSink) Write(_ context.Context, batch []*sdk.Delivery) []error {
	if c.n.Add(int64(len(batch))) >= c.want {
		select {
		case c.done <- struct{}{}:
		default:
		}
	}
	return make([]error, len(batch))
}

// BenchmarkConsume compares the engine's consumer with what a hand-written sink does: Messages and Ack.
func BenchmarkConsume(b *testing.B) {
	fill := func(b *testing.B) *enginetest.Server {
		s := enginetest.Start(b, enginetest.Options{})
		s.Streams("ns", "in", 4<<30)
		p, _ := startPublisher(b, s, sourceConfig(s))
		body := []byte(`{"id":"` + strings.Repeat("x", 1000) + `"}`)
		var batch []*sdk.Message
		for i := range b.N {
			batch = append(batch, &sdk.Message{ID: string(rune('a'+i%26)) + time.Duration(i).String(), ContentType: "application/json", Data: body})
			if len(batch) == 500 || i == b.N-1 {
				if err := p.Publish(b.Context(), batch...); err != nil {
					b.Fatal(err)
				}
				batch = nil
			}
		}
		return s
	}
	for name, max := range map[string]int{"engine/single": 1, "engine/batch": 200} {
		b.Run(name, func(b *testing.B) {
			s := fill(b)
			c := &countingSink{want: int64(b.N), done: make(chan struct{}, 1), max: max}
			o := sinkPod(b, s, newFakeSink(), 30*time.Second, routeConfig("r", "d"))
			o.system = sdk.System{Sink: func(sdk.Runtime, json.RawMessage) (sdk.Sink, error) { return c, nil }}
			b.ReportAllocs()
			b.ResetTimer()
			startPod(b, o)
			<-c.done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
	b.Run("raw", func(b *testing.B) {
		s := fill(b)
		s.Durable("ns", "in", "r", "d", 30*time.Second)
		creds := s.CredsFile("snk", contract.SinkPermissions("ns", "snk", []contract.SinkDestination{{Integration: "in", Route: "r", Destination: "d"}}), time.Hour)
		b.ReportAllocs()
		b.ResetTimer()
		nc, err := nats.Connect(s.URL(), nats.UserCredentials(creds), nats.CustomInboxPrefix(contract.InboxPrefix("ns", "snk")))
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.NewWithAPIPrefix(nc, contract.APIPrefix)
		if err != nil {
			b.Fatal(err)
		}
		c, err := js.Consumer(b.Context(), "ns_in", "ns_r_d")
		if err != nil {
			b.Fatal(err)
		}
		it, err := c.Messages(jetstream.PullMaxMessages(256))
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			m, err := it.Next()
			if err != nil {
				b.Fatal(err)
			}
			_ = m.Ack()
		}
		it.Stop()
		b.StopTimer()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}
