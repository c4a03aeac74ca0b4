package http

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// TestSourcesThatCannotCheckIn: what would have to look into a body that is not held in memory is refused, whatever the API server let pass.
func TestSourcesThatCannotCheckIn(t *testing.T) {
	for name, try := range map[string]struct {
		source contract.Source
		auth   contract.AuthKind
		ok     bool
	}{
		"binary":        {contract.Source{Format: sdk.FormatBinary}, contract.AuthBasic, true},
		"JSON":          {contract.Source{Format: sdk.FormatJSON}, contract.AuthBasic, false},
		"schema":        {contract.Source{Format: sdk.FormatBinary, Schema: &contract.Schema{}}, contract.AuthBasic, false},
		"partition key": {contract.Source{Format: sdk.FormatBinary, PartitionKey: "subject"}, contract.AuthBasic, false},
		"signature":     {contract.Source{Format: sdk.FormatBinary}, contract.AuthHMAC, false},
	} {
		c := contract.Config{Source: &try.source, Auth: contract.Auth{Kind: try.auth}}
		s, err := NewSource(fakes.Runtime(t, &c, &fakes.Secrets{}, nil), []byte(`{"maxBodySize":"9Mi"}`))
		if (err == nil) != try.ok {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewSource(fakes.Runtime(t, &c, &fakes.Secrets{}, nil), []byte(`{"maxBodySize":"8Mi"}`)); err != nil {
			t.Errorf("%s, up to what the bus carries: %v", name, err)
		}
		if s == nil {
			continue
		}
		// An engine that takes no large bodies is told so at the start, not by the first of them.
		if err := s.(*source).handler.takeLarge(&fakes.Publisher{}); err == nil {
			t.Error("a publisher without large bodies is taken")
		}
	}
}

// takenSlowly is a publisher whose large bodies are read when the test lets them.
type takenSlowly struct {
	fakes.Publisher
	read chan struct{}
	got  atomic.Int64
}

func (p *takenSlowly) PublishLarge(_ context.Context, _ *sdk.Message, body io.Reader) error {
	p.got.Add(1)
	<-p.read
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return fmt.Errorf("%w: %w", sdk.ErrBody, err)
	}
	if n != 9<<20 {
		return fmt.Errorf("%d bytes", n)
	}
	return nil
}

// TestLargeBodiesLeaveRoomToOthers: no more than a few are taken in at a time, and small ones pass meanwhile.
func TestLargeBodiesLeaveRoomToOthers(t *testing.T) {
	c := contract.Config{Source: &contract.Source{Format: sdk.FormatBinary, EventType: "test.event"}, Auth: contract.Auth{Kind: contract.AuthAnonymous}}
	s, err := NewSource(fakes.Runtime(t, &c, &fakes.Secrets{}, nil), []byte(`{"maxBodySize":"9Mi"}`))
	if err != nil {
		t.Fatal(err)
	}
	h, bus := s.(*source).handler, &takenSlowly{read: make(chan struct{})}
	h.bus = bus
	if err := h.takeLarge(bus); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	post := func(n, length int64) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, io.NopCloser(io.LimitReader(zeros{}, n)))
		if err != nil {
			t.Error(err)
			return 0
		}
		r.ContentLength = length
		response, err := server.Client().Do(r)
		if err != nil {
			return 0 // the answer came before the body was sent
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	taken := make(chan int, maxLarge)
	for i := range maxLarge {
		length := int64(9 << 20)
		if i < 2 {
			length = -1
		}
		go func() { taken <- post(9<<20, length) }()
	}
	fakes.Eventually(t, 20*time.Second, "all are being read", func() bool { return bus.got.Load() == maxLarge })
	if status := post(9<<20, 9<<20); status != http.StatusServiceUnavailable && status != 0 {
		t.Errorf("one more: %d", status)
	}
	if status := post(1<<10, 1<<10); status != http.StatusAccepted {
		t.Errorf("a small one: %d", status)
	}
	close(bus.read)
	for range maxLarge {
		if status := <-taken; status != http.StatusAccepted {
			t.Errorf("a large one: %d", status)
		}
	}
	fakes.Eventually(t, 5*time.Second, "nothing is held any more", func() bool { return h.bodies.Load() == 0 && h.larges.Load() == 0 })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
