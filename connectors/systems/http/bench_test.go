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
