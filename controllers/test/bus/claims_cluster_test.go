package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// TestAnOperatorThatHasReadFurtherThanTheStreamsReachReadsAgain: servers that lose what they had not written to disk give its sequences to other messages.
func TestAnOperatorThatHasReadFurtherThanTheStreamsReachReadsAgain(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := withClaims()
	s.Retention = time.Hour
	f := &claimFlow{flow: newFlow(t, b, quickTrim, s)}
	connect := func() {
		_, f.admin = b.Admin()
		f.large = edgeJetStream(t, f.user(t, "src", contract.SourcePermissions("ns", "intg", "src").WithClaims("ns", "intg", "src")))
	}
	connect()
	late, forgotten := f.upload(t, 1), f.upload(t, 1)
	config := b.Server(0).JetStreamConfig()
	dir, saved := config.StoreDir, filepath.Join(t.TempDir(), "saved")
	b.Stop(0)
	if err := os.CopyFS(saved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	b.Restart(0)
	connect()
	for range 5 {
		f.name(t, forgotten)
		f.next++
		forgotten.ID = fmt.Sprintf("%032x", f.next) // an id of its own each time, which the broker has not seen
	}
	// The cleaner has read those events when it has removed a claim that was given up after them.
	free := f.upload(t, 1)
	if _, err := f.large.Publish(t.Context(), contract.ClaimVoidSubject("ns", "intg", "src", free.ID), []byte("void")); err != nil {
		t.Fatal(err)
	}
	f.gone(t, free, "its source has given it up")
	b.Stop(0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	b.Restart(0)
	connect()
	f.name(t, late)
	orphan := f.upload(t, 1)
	f.gone(t, orphan, "nothing names it")
	f.kept(t, late, "an event names it, under a sequence that was read before")
}

// Where a message is that names a claim.
const (
	atSource = iota
	inEvents
	inLetters
	nowhere
)

// wanderer is a claim whose message goes from place to place.
type wanderer struct {
	contract.Claim
	place, moves int
}

// wanderers are moved by several.
type wanderers struct {
	*claimFlow
	ctx context.Context

	mu  sync.Mutex
	all map[string]*wanderer
	bad []string
}

// publish until it is confirmed.
func (w *wanderers) publish(js jetstream.JetStream, m *nats.Msg) {
	for w.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		_, err := js.PublishMsg(ctx, m)
		cancel()
		if err == nil {
			return
		}
	}
}

// whole tells whether a claim's chunk is there; it asks until the leader of the stream answers.
func (w *wanderers) whole(c contract.Claim) bool {
	for w.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		stream, err := w.admin.Stream(ctx, contract.ClaimStream("ns", "intg"))
		if err == nil {
			var info *jetstream.StreamInfo
			if info, err = stream.Info(ctx, jetstream.WithSubjectFilter(contract.ClaimChunks("ns", "intg", "src", c.ID))); err == nil {
				cancel()
				return len(info.State.Subjects) > 0
			}
		}
		cancel()
	}
	return true
}

// begin checks a body in and names it.
func (w *wanderers) begin() {
	w.mu.Lock()
	w.next++
	c := contract.Claim{ID: fmt.Sprintf("%032x", w.next), Size: 10, Chunk: contract.ClaimChunk, Digest: strings.Repeat("0", 64)}
	w.all[c.ID] = &wanderer{Claim: c}
	w.mu.Unlock()
	w.publish(w.large, &nats.Msg{Subject: contract.ClaimChunkSubject("ns", "intg", "src", c.ID, 0), Data: make([]byte, 10)})
	m := nats.NewMsg(contract.EventSubject("ns", "intg", "src", 0, "x"))
	m.Header.Set(contract.HeaderClaim, c.String())
	m.Header.Set(contract.HeaderID, c.ID)
	w.move(c.ID, inEvents)
	w.publish(w.large, m)
}

func (w *wanderers) move(id string, place int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[id].place = place
	w.all[id].moves++
}

// deliver what a durable is given: to the dead letters, or to the end.
func (w *wanderers) deliver(durable string) {
	for w.ctx.Err() == nil {
		consumer, err := w.admin.Consumer(w.ctx, "ns_intg", durable)
		if err != nil {
			continue
		}
		batch, err := consumer.Fetch(5, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			continue
		}
		for m := range batch.Messages() {
			w.one(m)
		}
	}
}

func (w *wanderers) one(m jetstream.Msg) {
	c, err := contract.ParseClaim(m.Headers().Get(contract.HeaderClaim))
	if err != nil {
		_ = m.Ack()
		return
	}
	w.mu.Lock()
	on := w.all[c.ID]
	last := on.place != inEvents || on.moves > 2+rand.IntN(8)
	place := on.place
	w.mu.Unlock()
	if place != nowhere && !w.whole(c) {
		w.mu.Lock()
		w.bad = append(w.bad, fmt.Sprintf("claim %s is gone after %d moves, in %d", c.ID, on.moves, place))
		w.mu.Unlock()
	}
	if place == inEvents && !last {
		letter := nats.NewMsg(contract.DeadSubject("ns", "intg", "route", "db", uint64(w.number(c)), 0))
		letter.Header.Set(contract.HeaderClaim, c.String())
		w.publish(w.admin, letter)
		if w.ctx.Err() != nil {
			return
		}
		w.move(c.ID, inLetters)
	} else if place == inEvents {
		w.move(c.ID, nowhere)
	}
	ctx, cancel := context.WithTimeout(w.ctx, time.Second)
	defer cancel()
	_ = m.DoubleAck(ctx) // if it is not heard the message comes again
}

func (w *wanderers) number(c contract.Claim) (n int) {
	_, _ = fmt.Sscanf(c.ID, "%x", &n)
	return n
}

// redrive dead letters, but for every fourth claim's, which stay: copy them to the events, then remove them.
func (w *wanderers) redrive() {
	for w.ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		w.mu.Lock()
		var some []contract.Claim
		for _, on := range w.all {
			if on.place == inLetters && w.number(on.Claim)%4 > 0 {
				some = append(some, on.Claim)
			}
		}
		w.mu.Unlock()
		for _, c := range some {
			copied := nats.NewMsg(contract.ReplaySubject("ns", "intg", "slow", "db", 0))
			copied.Header.Set(contract.HeaderClaim, c.String())
			w.move(c.ID, inEvents)
			w.publish(w.admin, copied)
			for w.ctx.Err() == nil {
				ctx, cancel := context.WithTimeout(w.ctx, time.Second)
				stream, err := w.admin.Stream(ctx, contract.DeadStream("ns", "intg"))
				if err == nil {
					err = stream.Purge(ctx, jetstream.WithPurgeSubject(contract.DeadSubject("ns", "intg", "route", "db", uint64(w.number(c)), 0)))
				}
				cancel()
				if err == nil {
					break
				}
			}
		}
	}
}

// TestClaimsAreCleanedWhileLeadersChange: three servers, of which one dies, and leaders of all streams that change all the time, while messages go
// from the events to the dead letters and back. No claim goes that any of them names, and what none names goes.
func TestClaimsAreCleanedWhileLeadersChange(t *testing.T) {
	b := bustest.Start(t, bustest.Options{Servers: 3})
	f := &claimFlow{flow: newFlow(t, b, func(p *bus.Params) { p.TrimInterval = 500 * time.Millisecond }, withClaims())}
	f.large = edgeJetStream(t, f.user(t, "src", contract.SourcePermissions("ns", "intg", "src").WithClaims("ns", "intg", "src")))
	slow := durable("ns", "intg", "slow", "db", "nobody")
	slow.RouteUID, slow.AckWait, slow.Filters = "r-2", 2*time.Second, append(slow.Filters, contract.ReplayFilter("ns", "intg", "slow", "db"))
	f.ensureDurable(t, slow)
	quick := durable("ns", "intg", "route", "db", "src")
	quick.AckWait = 2 * time.Second
	f.ensureDurable(t, quick)
	ctx, stop := context.WithCancel(t.Context())
	w := &wanderers{claimFlow: f, ctx: ctx, all: map[string]*wanderer{}}
	var orphans []contract.Claim
	for range 5 {
		orphans = append(orphans, f.upload(t, 1))
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { w.deliver("ns_route_db") })
	work.Go(func() { w.deliver("ns_slow_db") })
	work.Go(w.redrive)
	more := make(chan struct{})
	work.Go(func() {
		for {
			select {
			case <-more:
				return
			case <-time.After(50 * time.Millisecond):
				w.begin()
			}
		}
	})
	nc, _ := b.Admin()
	for i := range 50 {
		time.Sleep(300 * time.Millisecond)
		for _, stream := range []string{"ns_intg", contract.DeadStream("ns", "intg"), contract.ClaimStream("ns", "intg")} {
			_ = nc.Publish("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
		}
		if i == 25 {
			b.Restart(1)
		}
	}
	close(more)
	places := func() (counts [nowhere + 1]int, kept, free []contract.Claim) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, on := range w.all {
			counts[on.place]++
			if on.place == nowhere {
				free = append(free, on.Claim)
			} else {
				kept = append(kept, on.Claim)
			}
		}
		return counts, kept, free
	}
	eventually(t, 90*time.Second, func() string {
		if counts, kept, _ := places(); counts[inEvents] > 0 || slices.ContainsFunc(kept, func(c contract.Claim) bool { return w.number(c)%4 > 0 }) {
			return fmt.Sprintf("messages are still on their way: %v", counts)
		}
		return ""
	})
	counts, kept, free := places()
	eventually(t, 2*time.Minute, func() string {
		for _, c := range slices.Concat(free, orphans) {
			if w.whole(c) {
				return fmt.Sprintf("claim %s is still there", c.ID)
			}
		}
		return ""
	})
	for _, c := range kept {
		if !w.whole(c) {
			t.Errorf("claim %s is gone, and a dead letter names it", c.ID)
		}
	}
	for _, bad := range w.bad {
		t.Error(bad)
	}
	if len(kept) == 0 || len(free) == 0 || f.stream(t).State.FirstSeq < 10 {
		t.Errorf("%d claims are named, %d are not, and the events begin at %d: the test shows nothing", len(kept), len(free), f.stream(t).State.FirstSeq)
	}
	t.Logf("%v claims by place; the events begin at %d", counts, f.stream(t).State.FirstSeq)
}
