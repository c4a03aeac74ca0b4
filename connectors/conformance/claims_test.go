package conformance

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
)

// The whole path of a body that is larger than the bus carries: POST, engine, claim, engine, request.

// store is a system that keeps the digests of what it gets, by Idempotency-Key.
type store struct {
	mu      sync.Mutex
	digests map[string]string
	// signed are the values of the signature header.
	signed []string
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil || n != r.ContentLength {
		http.Error(w, "incomplete", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.digests[r.Header.Get("Ce-Id")] = hex.EncodeToString(h.Sum(nil))
	s.signed = append(s.signed, r.Header.Get("X-Signature-256"))
}

func (s *store) digest(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.digests[id]
}

// fileBody is n bytes that are the same for each seed.
func fileBody(seed string, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(seed))), n)
}

func fileDigest(t testing.TB, seed string, n int64) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, fileBody(seed, n)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// newFileFlow takes files of up to 64 MiB and makes requests of them.
func newFileFlow(t testing.TB, auth contract.AuthKind, secrets map[string]string, steps ...contract.Step) (*flow, *store) {
	t.Helper()
	f := &flow{SinkHarness: &SinkHarness{}, broker: enginetest.StartCluster(t, enginetest.Options{Servers: 1, Fsync: true}).Server, secrets: t.TempDir(), address: freeAddress(t)}
	f.broker.Streams(namespace, integration, 64<<20)
	f.broker.Claims(namespace, integration, 1<<30)
	f.broker.Durable(namespace, integration, "route", "to", 5*time.Second)
	f.mount(t, f.secrets, secrets)
	s := &store{digests: map[string]string{}}
	system := httptest.NewServer(s)
	t.Cleanup(system.Close)
	f.start(t, "in", contract.Config{
		Auth:   contract.Auth{Kind: contract.AuthAnonymous},
		Source: &contract.Source{System: contract.System{Type: "http", Options: []byte(`{"path":"/in","maxBodySize":"64Mi"}`)}, EventType: "test.file", Format: "Binary", DeduplicationWindow: contract.Duration(2 * time.Minute)},
	}, contract.SourcePermissions(namespace, integration, "in").WithClaims(namespace, integration, "in"), t.TempDir())
	f.start(t, "out", contract.Config{
		Auth: contract.Auth{Kind: auth},
		Sink: &contract.Sink{System: contract.System{Type: "http", Options: []byte(`{"url":"` + system.URL + `"}`)}, Routes: []contract.Route{{
			Name: "route", UID: "route-uid", Destination: "to", Integration: integration, Stream: contract.EventStream(namespace, integration),
			Durable: contract.DurableName(namespace, "route", "to"), Steps: steps,
			Delivery: contract.Delivery{Timeout: contract.Duration(60 * time.Second), Attempts: 5, Backoff: contract.Duration(50 * time.Millisecond), MaxBackoff: contract.Duration(time.Second)},
		}}},
	}, contract.SinkPermissions(namespace, "out", []contract.SinkDestination{{Integration: integration, Route: "route", Destination: "to", Sources: []string{"in"}}}), f.secrets)
	fakes.Eventually(t, 20*time.Second, "the listener is open", func() bool {
		conn, err := net.Dial("tcp", f.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return f, s
}

// postFile as it is read. Without a length it goes in chunks.
func (f *flow) postFile(ctx context.Context, id string, body io.Reader, length int64, header map[string]string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.address+"/in", io.NopCloser(body))
	if err != nil {
		return 0, "", err
	}
	request.ContentLength = length
	request.Header.Set("Idempotency-Key", id)
	request.Header.Set("Content-Type", "video/mp4")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// mustPostFile until it is accepted.
func (f *flow) mustPostFile(t testing.TB, id string, n, length int64) {
	t.Helper()
	fakes.Eventually(t, 60*time.Second, "file "+id+" is accepted", func() bool {
		status, text, err := f.postFile(t.Context(), id, fileBody(id, n), length, nil)
		if err == nil && status != http.StatusAccepted && status != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", status, text)
		}
		return status == http.StatusAccepted
	})
}

// TestLargeBodyFromRequestToRequest: 64 MiB pass source and sink, and what both hold of them meanwhile is a small part.
func TestLargeBodyFromRequestToRequest(t *testing.T) {
	f, s := newFileFlow(t, contract.AuthAnonymous, nil, contract.Step{Name: "filter", Filter: `type == "test.file"`})
	const size = 64 << 20
	f.mustPostFile(t, "warm", 9<<20, 9<<20)
	fakes.Eventually(t, 60*time.Second, "the first is delivered", func() bool { return s.digest("warm") == fileDigest(t, "warm", 9<<20) })

	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var most atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			runtime.GC() // what is left is held
			runtime.ReadMemStats(&now)
			most.Store(max(most.Load(), now.HeapAlloc))
			time.Sleep(20 * time.Millisecond)
		}
	})
	f.mustPostFile(t, "large", size, size)
	f.mustPostFile(t, "unsized", size, -1)
	want := map[string]string{"large": fileDigest(t, "large", size), "unsized": fileDigest(t, "unsized", size)}
	for id := range want {
		fakes.Eventually(t, 60*time.Second, id+" is delivered", func() bool { return s.digest(id) == want[id] })
	}
	cancel()
	watch.Wait()
	// Source, sink, caller, system and the broker itself are one process here, which reads what it stores through caches of its own.
	held := int64(most.Load()) - int64(before.HeapAlloc)
	t.Logf("at most %.1f MiB were held of bodies of 64 MiB", float64(held)/(1<<20))
	if held > size*3/4 {
		t.Errorf("%d bytes are held of a body of %d", held, size)
	}
	for _, m := range f.broker.Messages(contract.EventStream(namespace, integration)) {
		if len(m.Data) > 0 {
			t.Errorf("an event has %d bytes", len(m.Data))
		}
	}
	if n := len(f.broker.Messages(contract.DeadStream(namespace, integration))); n > 0 {
		t.Errorf("%d dead letters", n)
	}
}

// TestLargeBodiesAreSigned: the signature is of the whole body.
func TestLargeBodiesAreSigned(t *testing.T) {
	f, s := newFileFlow(t, contract.AuthHMAC, map[string]string{contract.FileHMACKey: "key"})
	f.mustPostFile(t, "a", 9<<20, 9<<20)
	fakes.Eventually(t, 60*time.Second, "it is delivered", func() bool { return s.digest("a") == fileDigest(t, "a", 9<<20) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := signatureOf(t, "key", fileBody("a", 9<<20)); s.signed[0] != want {
		t.Errorf("signed %s, want %s", s.signed[0], want)
	}
}

// TestRefusalsOfLargeBodies: what is refused leaves no message, and the rest goes on.
func TestRefusalsOfLargeBodies(t *testing.T) {
	f, s := newFileFlow(t, contract.AuthAnonymous, nil)
	const large = 9 << 20
	post := func(id string, n, length int64, header map[string]string) (int, string) {
		status, text, err := f.postFile(t.Context(), id, fileBody(id, n), length, header)
		if err != nil {
			t.Logf("%s: %v", id, err) // the answer may come before all is sent
		}
		return status, text
	}
	for id, try := range map[string]struct {
		n, length int64
		header    map[string]string
		status    int
	}{
		"above the limit": {65 << 20, 65 << 20, nil, http.StatusRequestEntityTooLarge},
		"structured":      {large, large, map[string]string{"Content-Type": "application/cloudevents+json"}, http.StatusRequestEntityTooLarge},
		"batch":           {large, -1, map[string]string{"Content-Type": "application/cloudevents-batch+json"}, http.StatusRequestEntityTooLarge},
		"foreign type":    {large, large, map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/x", "Ce-Type": "other"}, http.StatusBadRequest},
	} {
		if status, text := post(id, try.n, try.length, try.header); status != try.status && status != 0 {
			t.Errorf("%s: %d %s", id, status, text)
		}
	}
	// One that turns out to be too large when most of it is stored.
	if status, text := post("endless", 70<<20, -1, nil); status != http.StatusRequestEntityTooLarge && status != 0 {
		t.Errorf("endless: %d %s", status, text)
	}
	// One whose caller goes away.
	if _, _, err := f.postFile(t.Context(), "cut", io.MultiReader(fileBody("cut", large), &failing{}), 2*large, nil); err == nil {
		t.Error("a body that broke off was answered")
	}
	if status, text := post("binary", large, large, map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "event", "Ce-Source": "/x", "Ce-Type": "test.file", "Ce-Station": "north"}); status != http.StatusAccepted {
		t.Errorf("a CloudEvent in binary mode: %d %s", status, text)
	}
	fakes.Eventually(t, 60*time.Second, "it is delivered", func() bool { return s.digest("event") == fileDigest(t, "binary", large) })
	if n := len(f.broker.Messages(contract.EventStream(namespace, integration))); n != 1 {
		t.Errorf("%d messages", n)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the caller is gone") }

// BenchmarkLargeBody is what a body costs from request to request: the largest that the bus carries, and claims.
func BenchmarkLargeBody(b *testing.B) {
	for _, size := range []int64{8 << 20, 9 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			f, s := newFileFlow(b, contract.AuthAnonymous, nil)
			b.SetBytes(size)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				id := strconv.Itoa(i)
				f.mustPostFile(b, id, size, size)
				fakes.Eventually(b, 60*time.Second, "it is delivered", func() bool { return s.digest(id) != "" })
				if i%4 == 3 {
					b.StopTimer()
					f.purge(b, contract.ClaimStream(namespace, integration))
					f.purge(b, contract.EventStream(namespace, integration))
					b.StartTimer()
				}
			}
		})
	}
}

func (f *flow) purge(t testing.TB, name string) {
	t.Helper()
	stream, err := f.broker.Admin().Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func signatureOf(t testing.TB, key string, body io.Reader) string {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(key))
	if _, err := io.Copy(mac, body); err != nil {
		t.Fatal(err)
	}
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
