package engine

import (
	"context"
	"fmt"
	"log/slog"
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

func sourceConfig(s *enginetest.Server) *contract.Config {
	return &contract.Config{
		Version: contract.ConfigVersion, Hash: "h1",
		Connector: contract.Connector{Namespace: "ns", Name: "src", UID: "uid-src", Integration: "in"},
		Broker:    s.Broker(),
		Source:    &contract.Source{System: contract.System{Type: "test"}, EventType: "custody.arrest", Format: "JSON"},
	}
}

// startPublisher makes the publishing half of an engine.
func startPublisher(t testing.TB, s *enginetest.Server, c *contract.Config) (*publisher, *connection) {
	t.Helper()
	creds := s.CredsFile(c.Connector.Name, contract.SourcePermissions(c.Connector.Namespace, c.Connector.Integration, c.Connector.Name), time.Hour)
	conn := newConnection(c, creds, slog.New(slog.DiscardHandler))
	if err := conn.open(c, "pod-1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.nc.Close)
	r, err := newReplies(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				r.sweep(now)
			}
		}
	}()
	p := newPublisher(c, conn, r, newSourceMetrics(newRegistry(c, "pod-1")), func() {})
	if p.batches != nil {
		go p.batches.run(ctx.Done())
	}
	return p, conn
}

// BenchmarkPublish compares the engine's publisher with what a hand-written source does: jetstream.Publish with a message id, one call each.
func BenchmarkPublish(b *testing.B) {
	body := []byte(`{"id":"` + strings.Repeat("x", 1000) + `"}`)
	for _, fsync := range []bool{false, true} {
		for _, publishers := range []int{1, 8, 32, 256} {
			name := fmt.Sprintf("fsync=%v/publishers=%d", fsync, publishers)
			b.Run("engine/"+name, func(b *testing.B) {
				s := enginetest.Start(b, enginetest.Options{Fsync: fsync})
				s.Streams("ns", "in", 4<<30)
				p, _ := startPublisher(b, s, sourceConfig(s))
				ctx := b.Context()
				run(b, publishers, func(i int64) error {
					return p.Publish(ctx, &sdk.Message{ID: fmt.Sprint(i), ContentType: "application/json", Data: body})
				})
			})
			b.Run("raw/"+name, func(b *testing.B) {
				s := enginetest.Start(b, enginetest.Options{Fsync: fsync})
				s.Streams("ns", "in", 4<<30)
				creds := s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), time.Hour)
				nc, err := nats.Connect(s.URL(), nats.UserCredentials(creds), nats.CustomInboxPrefix(contract.InboxPrefix("ns", "src")))
				if err != nil {
					b.Fatal(err)
				}
				defer nc.Close()
				js, err := jetstream.New(nc)
				if err != nil {
					b.Fatal(err)
				}
				ctx := b.Context()
				run(b, publishers, func(i int64) error {
					_, err := js.Publish(ctx, "evt.ns.in.src.0.custody.arrest", body, jetstream.WithMsgID(fmt.Sprint(i)))
					return err
				})
			})
		}
	}
}

func run(b *testing.B, publishers int, publish func(int64) error) {
	var next atomic.Int64
	errs := make(chan error, publishers)
	b.ReportAllocs()
	b.ResetTimer()
	for range publishers {
		go func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					errs <- nil
					return
				}
				if err := publish(i); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for range publishers {
		if err := <-errs; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkPublishMany hands over 500 messages in each call, as a source does that has many at hand. An operation is one message.
func BenchmarkPublishMany(b *testing.B) {
	const many = 500
	s := enginetest.Start(b, enginetest.Options{Fsync: true})
	s.Streams("ns", "in", 4<<30)
	p, _ := startPublisher(b, s, sourceConfig(s))
	body := []byte(`{"id":"` + strings.Repeat("x", 1000) + `"}`)
	messages := make([]*sdk.Message, many)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += many {
		for j := range messages {
			messages[j] = &sdk.Message{ID: fmt.Sprint(i + j), ContentType: "application/json", Data: body}
		}
		if err := p.Publish(b.Context(), messages...); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
