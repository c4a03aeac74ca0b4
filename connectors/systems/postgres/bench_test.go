package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/postgrestest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// BenchmarkWrite measures messages of 1 KiB by the size of the batch, on one connection.
func BenchmarkWrite(b *testing.B) {
	server.Exec(b, "postgres", "DROP DATABASE IF EXISTS bench")
	server.Exec(b, "postgres", "CREATE DATABASE bench")
	server.Exec(b, "bench", "CREATE TABLE t (id bigint PRIMARY KEY, name text, made timestamptz, doc jsonb)")
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true}}
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{"username": "postgres", "password": "correct horse battery", "ca.crt": server.CA.PEM})
	s, err := NewSink(fakes.Runtime(b, config, secrets, nil), fakes.JSON(b, map[string]any{
		"connection": map[string]any{"host": server.Host, "port": server.Port, "database": "bench"},
		"write": map[string]any{"table": "t", "keyColumns": []string{"id"},
			"columns": map[string]string{"id": "data.id", "name": "data.name", "made": "time", "doc": "data"}},
	}))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	op, err := s.Operation(nil)
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	for _, size := range []int{1, 16, 100, 500} {
		b.Run(fmt.Sprintf("batch-%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				batch := make([]*sdk.Delivery, size)
				for i := range batch {
					id := next.Add(1)
					batch[i] = fakes.Delivery(fmt.Sprint(id), fmt.Sprintf(`{"id":%d,"name":"Jane Doe","text":%q}`, id, strings.Repeat("x", 980)))
				}
				for _, err := range op.Write(b.Context(), batch) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkCapture is one change of 1 KiB, from the server's log to a bus that confirms at once.
func BenchmarkCapture(b *testing.B) {
	server.Exec(b, "postgres", "CREATE TABLE IF NOT EXISTS captured (id bigint PRIMARY KEY, v text); TRUNCATE captured; DROP PUBLICATION IF EXISTS captured; CREATE PUBLICATION captured FOR TABLE captured")
	server.Exec(b, "postgres", "SELECT pg_create_logical_replication_slot('captured', 'pgoutput')")
	defer func() {
		fakes.Eventually(b, within, "the slot has no reader", func() bool {
			return len(server.Query(b, "postgres", "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'captured' AND NOT active")) > 0
		})
		server.Exec(b, "postgres", "SELECT pg_drop_replication_slot('captured')")
	}()
	server.Exec(b, "postgres", fmt.Sprintf("INSERT INTO captured SELECT i, repeat('x', 1000) FROM generate_series(1, %d) i", b.N))
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{"username": postgrestest.Superuser, "password": postgrestest.Password})
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON}}
	s, err := NewSource(fakes.Runtime(b, config, secrets, nil), fakes.JSON(b, map[string]any{
		"connection": map[string]any{"host": server.Host, "port": server.Port, "database": "postgres", "encryption": "Disabled"},
		"capture":    map[string]any{"slot": "captured"},
	}))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	bus := &counter{want: b.N, done: cancel}
	b.SetBytes(1000)
	b.ReportAllocs()
	b.ResetTimer()
	if err := s.Run(ctx, bus, &fakes.Reporter{}); err != nil {
		b.Fatal(err)
	}
}

// counter is a bus that counts, and says when it has enough.
type counter struct {
	want, got int
	done      func()
}

// Publish implements sdk.Publisher.
func (c *counter) Publish(_ context.Context, messages ...*sdk.Message) error {
	if c.got += len(messages); c.got >= c.want {
		c.done()
	}
	return nil
}

// Ready implements sdk.Publisher.
func (c *counter) Ready() error { return nil }
