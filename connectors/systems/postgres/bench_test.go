package postgres

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
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
