package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// Further stages at which a scripted source dies, of a body that is checked in; dieSent and dieStored are of the message that names it.
const (
	dieUpload  = "upload"  // half of it is read
	dieClaimed = "claimed" // all of it is read
)

// publishLarge as a scripted source does: size bytes that the id decides.
func publishLarge(ctx context.Context, bus sdk.Publisher, id, size, die string) error {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	body := bodyOf(id, n)
	switch die {
	case dieUpload:
		body = io.MultiReader(bodyOf(id, n/2), &deadlyBody{})
	case dieClaimed:
		body = io.MultiReader(body, &deadlyBody{})
	case dieSent:
		go func() { _ = bus.(sdk.LargePublisher).PublishLarge(ctx, large(id), body); dieNow() }()
		dieSending("evt.")
	}
	err = bus.(sdk.LargePublisher).PublishLarge(ctx, large(id), body)
	if die == dieStored {
		dieNow()
	}
	return err
}

// deadlyBody is the last that its reader reads, once what it read before is stored.
type deadlyBody struct{}

func (*deadlyBody) Read([]byte) (int, error) {
	for awaits("blob.") {
		time.Sleep(time.Millisecond)
	}
	dieNow()
	return 0, errors.ErrUnsupported
}

// bodyTarget reads bodies, and keeps their digests by id.
type bodyTarget struct {
	*httptest.Server
	// hold is called, when it is set, with half of a body read.
	hold func(id string, times int)

	mu      sync.Mutex
	times   map[string]int
	digests map[string][]string
}

func newBodyTarget(t testing.TB) *bodyTarget {
	b := &bodyTarget{times: map[string]int{}, digests: map[string][]string{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := strings.TrimPrefix(r.URL.Path, "/")
		b.mu.Lock()
		b.times[id]++
		times, hold := b.times[id], b.hold
		b.mu.Unlock()
		half := io.LimitReader(r.Body, r.ContentLength/2)
		body := io.MultiReader(half, readerFunc(func([]byte) (int, error) {
			if hold != nil {
				hold(id, times)
			}
			return 0, io.EOF
		}), r.Body)
		digest, n, err := digestOf(body)
		if err != nil || n != r.ContentLength {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.digests[id] = append(b.digests[id], digest)
		if id == "confirmed" && times == 1 {
			w.WriteHeader(http.StatusResetContent)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// whole is how often the target got a body whole; it fails for one that is another.
func (b *bodyTarget) whole(t testing.TB, id string, size int64) int {
	t.Helper()
	want, _, err := digestOf(bodyOf(id, size))
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, got := range b.digests[id] {
		if got != want {
			t.Fatalf("%s is not what was sent", id)
		}
	}
	return len(b.digests[id])
}

// TestSourcePodDiesWhileItChecksIn: kill -9 of a source's pod at each step of a large body. The caller sends it again: it is stored and delivered
// once and whole, and what the first upload left is named by nothing.
func TestSourcePodDiesWhileItChecksIn(t *testing.T) {
	t.Parallel()
	const size = 5<<20 + 11
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1, Fsync: true})
	c.Streams("ns", "in", streamSize)
	c.Claims("ns", "in", 512<<20)
	target := newBodyTarget(t)
	r := routeConfig("r", "d")
	r.Sources = []string{"src"}
	o := sinkPod(t, c.Server, newFakeSink(), 5*time.Second, r)
	o.config.Sink.System.Options, _ = json.Marshal(target.URL)
	startChild(t, o)
	p := startChild(t, podOptions{config: sourceConfig(c.Server), creds: c.CredsFile("src", contract.SourcePermissions("ns", "in", "src").WithClaims("ns", "in", "src"), time.Hour)})
	for _, stage := range []string{dieUpload, dieClaimed, dieSent, dieStored} {
		url := fmt.Sprintf("http://%s/%s?large=%d", p.options.Listen, stage, size)
		if status, err := postTo(t.Context(), url+"&die="+stage); err == nil {
			t.Fatalf("%s: it was answered %d", stage, status)
		}
		<-p.process.Ended()
		p.restart()
		within(t, 30*time.Second, stage+": it is accepted", func() bool {
			status, err := postTo(t.Context(), url)
			return err == nil && status == http.StatusOK
		})
		if n := storedIDs(c.Server)[stage]; n != 1 {
			t.Errorf("%s is stored %d times", stage, n)
		}
		within(t, 30*time.Second, stage+": it is delivered", func() bool { return target.whole(t, stage, size) == 1 })
	}
	within(t, 20*time.Second, "all is settled", func() bool { return settledAll(t, c.Server, "ns_r_d") })
	named := map[string]bool{}
	for _, m := range c.Messages("ns_in") {
		if claim, err := contract.ParseClaim(m.Header.Get(contract.HeaderClaim)); err == nil {
			named[claim.ID] = true
		}
	}
	uploads := map[string]bool{}
	for _, m := range chunks(t, c.Server) {
		_, id, _, _ := contract.ParseClaimSubject(m.Subject)
		uploads[id] = true
	}
	if len(named) != 4 || len(uploads) != 8 {
		t.Errorf("%d claims are named of %d, want 4 of 8", len(named), len(uploads))
	}
}

// TestSinkPodDiesWhileItChecksOut: kill -9 of a sink's pod in the middle of a large body, and when the target has confirmed it and the broker does
// not know. It comes again, whole.
func TestSinkPodDiesWhileItChecksOut(t *testing.T) {
	t.Parallel()
	const size = 5 << 20
	c := enginetest.StartCluster(t, enginetest.Options{Servers: 1})
	c.Streams("ns", "in", streamSize)
	c.Claims("ns", "in", 64<<20)
	target := newBodyTarget(t)
	half, dead := make(chan struct{}), make(chan struct{})
	target.hold = func(id string, times int) {
		if id == "working" && times == 1 {
			close(half)
			<-dead
		}
	}
	r := routeConfig("r", "d")
	r.Sources = []string{"src"}
	o := sinkPod(t, c.Server, newFakeSink(), 2*time.Second, r)
	o.config.Sink.System.Options, _ = json.Marshal(target.URL)
	p := startChild(t, o)
	_, bus, _ := claimSource(t, c.Server)
	if err := bus.PublishLarge(t.Context(), large("working"), bodyOf("working", size)); err != nil {
		t.Fatal(err)
	}
	<-half
	p.process.Kill()
	close(dead)
	p.start()
	within(t, 30*time.Second, "it is delivered by the next pod", func() bool { return target.whole(t, "working", size) == 1 && settledAll(t, c.Server, "ns_r_d") })
	if err := bus.PublishLarge(t.Context(), large("confirmed"), bodyOf("confirmed", size)); err != nil {
		t.Fatal(err)
	}
	<-p.process.Ended()
	p.restart()
	within(t, 30*time.Second, "it is delivered by the next pod", func() bool { return target.whole(t, "confirmed", size) == 2 && settledAll(t, c.Server, "ns_r_d") })
}
