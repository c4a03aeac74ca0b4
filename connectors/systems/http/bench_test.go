package http

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// confirming is a bus that does nothing.
type confirming struct{}

func (confirming) Publish(_ context.Context, _ ...*sdk.Message) error { return nil }
func (confirming) Ready() error                                       { return nil }

// BenchmarkHandler measures what one request of 1 KiB costs besides net/http and the broker.
func BenchmarkHandler(b *testing.B) {
	auth, err := newListenAuth(contract.Auth{Kind: contract.AuthAnonymous}, &fakes.Secrets{})
	if err != nil {
		b.Fatal(err)
	}
	h := &handler{path: "/", maxBody: 1 << 20, format: sdk.FormatJSON, auth: auth, bus: confirming{}}
	record := `{"id":12345,"name":"Jane Doe","list":[1,2,3],"text":"` + strings.Repeat("x y ", 240) + `"}`
	for _, test := range []struct {
		name   string
		header map[string]string
		body   string
	}{
		{"plain", map[string]string{"Content-Type": "application/json"}, record},
		{"binary", map[string]string{"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/s", "Ce-Type": "t"}, record},
		{"structured", map[string]string{"Content-Type": "application/cloudevents+json"}, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":` + record + `}`},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			for name, value := range test.header {
				r.Header.Set(name, value)
			}
			r.ContentLength = int64(len(test.body))
			for b.Loop() {
				r.Body = io.NopCloser(bytes.NewReader([]byte(test.body)))
				w := &discard{header: http.Header{}}
				if h.ServeHTTP(w, r); w.status != http.StatusAccepted {
					b.Fatal(w.status)
				}
			}
		})
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkDeliver measures a request to a server in the same process, beside net/http's client alone.
func BenchmarkDeliver(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	d := fakes.Delivery("1", `{"id":12345,"text":"`+strings.Repeat("x y ", 240)+`"}`)
	d.Headers = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	b.Run("client alone", func(b *testing.B) {
		b.ReportAllocs()
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				response, err := client.Post(server.URL, "application/json", bytes.NewReader(d.Data))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	})
	for _, path := range []string{"", "/cases/{data.id}"} {
		b.Run("sink"+path, func(b *testing.B) {
			b.ReportAllocs()
			config := contract.Config{}
			s, err := NewSink(fakes.Runtime(b, &config, &fakes.Secrets{}, nil), fakes.JSON(b, map[string]any{"url": server.URL, "request": map[string]any{"path": path}}))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			op, err := s.Operation(nil)
			if err != nil {
				b.Fatal(err)
			}
			b.RunParallel(func(pb *testing.PB) {
				m := *d.Message
				own := &sdk.Delivery{Message: &m, MessageID: d.MessageID}
				batch := []*sdk.Delivery{own}
				for pb.Next() {
					if err := op.Write(b.Context(), batch)[0]; err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
