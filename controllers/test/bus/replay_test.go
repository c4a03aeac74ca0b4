package bus_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// replay of ns/intg's Route route to its destination db.
func replay() bus.Replay {
	return bus.Replay{
		Namespace: "ns", Integration: "intg", Route: "route", Destination: "db", Name: "again", UID: "u-1",
		Filters: []string{contract.EventFilter("ns", "intg", "src", "")},
	}
}

// replayDurable filters copies too.
func replayDurable() bus.Durable {
	d := durable("ns", "intg", "route", "db", "src")
	d.Filters = append(d.Filters, contract.ReplayFilter("ns", "intg", "route", "db"))
	return d
}

// event that a connector of ns/intg has published, with its id, and where it is stored.
func (f *flow) event(t *testing.T, connector, id string, size int) uint64 {
	t.Helper()
	m := &nats.Msg{
		Subject: contract.EventSubject("ns", "intg", connector, contract.Slot(id), "arrest"), Data: make([]byte, size),
		Header: nats.Header{"Nats-Msg-Id": {contract.MessageID("uid-"+connector, "", id)}, contract.HeaderID: {id}, contract.HeaderType: {"arrest"}},
	}
	ack, err := f.admin.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// copies in the stream, by the id of their original, as the messages themselves.
func (f *flow) copies(t *testing.T) map[string][]*jetstream.RawStreamMsg {
	t.Helper()
	stream, err := f.admin.Stream(t.Context(), "ns_intg")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]*jetstream.RawStreamMsg{}
	for seq := uint64(1); ; {
		m, err := stream.GetMsg(t.Context(), seq, jetstream.WithGetMsgSubject(contract.ReplaySubjects("ns", "intg")))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[m.Header.Get(contract.HeaderID)] = append(out[m.Header.Get(contract.HeaderID)], m)
		seq = m.Sequence + 1
	}
}

// count and plan of a Replay.
func (f *flow) count(t *testing.T, r bus.Replay) (bus.ReplayPlan, uint64, uint64) {
	t.Helper()
	p, err := f.session.PlanReplay(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var c bus.ReplayCount
	for {
		done, err := f.session.CountReplay(t.Context(), r, p, &c, time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return p, c.Matched, c.Missing(r)
		}
	}
}

// start progress of a plan.
func start(p bus.ReplayPlan) *bus.ReplayProgress {
	return &bus.ReplayProgress{Position: p.First - 1, LastCopy: p.After}
}

// finish copies all that is left.
func (f *flow) finish(t *testing.T, r bus.Replay, p bus.ReplayPlan, progress *bus.ReplayProgress) {
	t.Helper()
	for pace := (&bus.Pace{}); progress.Position < p.Last; {
		if err := f.session.CopyReplay(t.Context(), r, p, progress, pace, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplayCopiesARange(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	f.ensureDurable(t, replayDurable())
	var first, last uint64
	for i := range 700 {
		seq := f.event(t, "src", fmt.Sprint("m", i), 100)
		f.event(t, "other", fmt.Sprint("o", i), 100)
		if i == 100 {
			first = seq
		}
		if i == 599 {
			last = seq
		}
	}
	r := replay()
	r.First, r.Last = first, last
	p, matched, missing := f.count(t, r)
	if matched != 500 || missing != 0 || p.First != first || p.Last != last || p.Trimmed != 0 {
		t.Fatalf("matched %d, missing %d, plan %+v", matched, missing, p)
	}
	if n := len(f.copies(t)); n != 0 {
		t.Fatalf("counting has stored %d copies", n)
	}
	progress := start(p)
	f.finish(t, r, p, progress)
	copies := f.copies(t)
	if len(copies) != 500 || progress.Sent != 500 {
		t.Fatalf("%d copies, %d sent", len(copies), progress.Sent)
	}
	for i := 100; i < 600; i++ {
		id := fmt.Sprint("m", i)
		list := copies[id]
		if len(list) != 1 {
			t.Fatalf("%s has %d copies", id, len(list))
		}
		m, slot := list[0], contract.Slot(id)
		original := contract.EventSubject("ns", "intg", "src", slot, "arrest")
		want := map[string]string{
			contract.HeaderReplayName: "again", contract.HeaderReplaySubject: original, contract.HeaderReplayMessageID: "uid-src//" + id,
			contract.HeaderReplaySequence: strconv.FormatUint(first+uint64(2*(i-100)), 10), contract.HeaderType: "arrest", contract.HeaderReplayRedrives: "",
			"Nats-Msg-Id": contract.ReplayMessageID("u-1", first+uint64(2*(i-100))),
		}
		for name, v := range want {
			if m.Header.Get(name) != v {
				t.Errorf("%s: header %s is %q, want %q", id, name, m.Header.Get(name), v)
			}
		}
		if m.Subject != contract.ReplaySubject("ns", "intg", "route", "db", slot) || len(m.Data) != 100 {
			t.Errorf("%s: subject %s, %d bytes", id, m.Subject, len(m.Data))
		}
	}
	// A second run of the same Replay finds everything stored.
	again := start(p)
	if err := f.session.RecoverReplay(t.Context(), r, p, again); err != nil {
		t.Fatal(err)
	}
	f.finish(t, r, p, again)
	if n := f.stream(t).State.LastSeq; again.Sent != 500 || n != uint64(1400+500) {
		t.Errorf("the second run sent %d, and the stream ends at %d", again.Sent, n)
	}
}

func TestReplayOfTimesAndIDs(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	for i := range 50 {
		f.event(t, "src", fmt.Sprint("before", i), 10)
	}
	time.Sleep(20 * time.Millisecond)
	since := time.Now()
	for i := range 30 {
		f.event(t, "src", fmt.Sprint("m/", i), 10)
	}
	f.event(t, "src", "%C3%A9", 10) // é, as headers write it
	time.Sleep(20 * time.Millisecond)
	until := time.Now()
	for i := range 20 {
		f.event(t, "src", fmt.Sprint("after", i), 10)
	}
	times := replay()
	times.Since, times.Until = since, until
	if p, matched, _ := f.count(t, times); matched != 31 || p.Oldest.IsZero() {
		t.Errorf("%d messages of the time, want 31", matched)
	}
	ids := replay()
	ids.IDs = []string{"m/3", "uid-src//m/4", "é", "after0", "gone", "m/3x"}
	p, matched, missing := f.count(t, ids)
	if matched != 4 || missing != 2 {
		t.Errorf("%d messages match, %d ids are missing, want 4 and 2", matched, missing)
	}
	progress := start(p)
	f.finish(t, ids, p, progress)
	copies := f.copies(t)
	if got := slices.Sorted(maps.Keys(copies)); progress.Sent != 4 || !slices.Equal(got, []string{"%C3%A9", "after0", "m/3", "m/4"}) {
		t.Errorf("sent %d: %v", progress.Sent, got)
	}
	for id, m := range copies {
		if len(m) != 1 || len(m[0].Data) != 10 {
			t.Errorf("%s: %d copies, body of %d bytes", id, len(m), len(m[0].Data))
		}
	}
	early := replay()
	early.Until = since.Add(-time.Hour)
	if p, matched, _ := f.count(t, early); matched != 0 {
		t.Errorf("%d messages match before there were any: %+v", matched, p)
	}
}

func TestReplayOfWhatIsTrimmed(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	for i := range 100 {
		f.event(t, "src", fmt.Sprint("m", i), 10)
	}
	stream, err := f.admin.Stream(t.Context(), "ns_intg")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(41)); err != nil {
		t.Fatal(err)
	}
	r := replay()
	r.First, r.Last = 31, 60
	p, matched, _ := f.count(t, r)
	if p.Trimmed != 10 || matched != 20 {
		t.Errorf("trimmed %d, matched %d, want 10 and 20", p.Trimmed, matched)
	}
	r.First, r.Last = 1, 20
	if p, matched, _ = f.count(t, r); p.Trimmed != 20 || matched != 0 {
		t.Errorf("trimmed %d, matched %d, want 20 and 0", p.Trimmed, matched)
	}
	f.finish(t, r, p, start(p))
	if n := len(f.copies(t)); n != 0 {
		t.Errorf("%d copies of nothing", n)
	}
}

// TestReplayResumesWithoutDuplicates: whatever of the progress is lost, also when the broker remembers no ids any more.
func TestReplayResumesWithoutDuplicates(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("servers=%d", servers), func(t *testing.T) {
			b := bustest.Start(t, bustest.Options{Servers: servers})
			s := streams("ns", "intg")
			s.DeduplicationWindow = 100 * time.Millisecond
			f := newFlow(t, b, nil, s)
			for i := range 600 {
				f.event(t, "src", fmt.Sprint("m", i), 50)
			}
			r := replay()
			p, matched, _ := f.count(t, r)
			if matched != 600 {
				t.Fatalf("matched %d", matched)
			}
			kept := *start(p)
			nc, _ := b.Admin()
			for round := 0; kept.Position < p.Last; round++ {
				progress := bus.ReplayProgress{Position: kept.Position, Sent: kept.Sent, LastCopy: kept.LastCopy}
				eventually(t, 20*time.Second, func() string {
					if err := f.session.RecoverReplay(t.Context(), r, p, &progress); err != nil {
						return err.Error()
					}
					return ""
				})
				pace := &bus.Pace{}
				pace.SetRate(1000)
				err := f.session.CopyReplay(t.Context(), r, p, &progress, pace, time.Now().Add(150*time.Millisecond))
				if err != nil && !errors.Is(err, bus.ErrUnreachable) {
					t.Fatal(err)
				}
				if round%2 == 1 || progress.Position == p.Last { // every other run was killed before it wrote anything down
					kept = bus.ReplayProgress{Position: progress.Position, Sent: progress.Sent, LastCopy: progress.LastCopy}
				}
				if servers > 1 && round%3 == 0 {
					_ = nc.Publish("$JS.API.STREAM.LEADER.STEPDOWN.ns_intg", nil)
				}
				time.Sleep(120 * time.Millisecond) // the window of de-duplication is over
			}
			copies := f.copies(t)
			for id, list := range copies {
				if len(list) != 1 {
					t.Errorf("%s has %d copies", id, len(list))
				}
			}
			if len(copies) != 600 || kept.Sent != 600 {
				t.Errorf("%d copies, %d sent, want 600", len(copies), kept.Sent)
			}
		})
	}
}

func TestReplayKeepsToItsRate(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	for i := range 400 {
		f.event(t, "src", fmt.Sprint("m", i), 10)
	}
	r := replay()
	p, _, _ := f.count(t, r)
	progress, pace := start(p), &bus.Pace{}
	pace.SetRate(100)
	begun := time.Now()
	if err := f.session.CopyReplay(t.Context(), r, p, progress, pace, begun.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	// A burst of a tenth of a second may come on top; slowness is no fault here.
	if limit := uint64(100*time.Since(begun).Seconds()) + 11; progress.Sent == 0 || progress.Sent > limit {
		t.Errorf("%d copies in %s at 100 a second", progress.Sent, time.Since(begun))
	}
}

func TestReplayLeavesRoomToSources(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := streams("ns", "intg")
	s.MaxBytes = 4 << 20
	f := newFlow(t, b, nil, s)
	for i := range 500 {
		f.event(t, "src", fmt.Sprint("m", i), 4<<10)
	}
	r := replay()
	p, _, _ := f.count(t, r)
	progress := start(p)
	err := f.session.CopyReplay(t.Context(), r, p, progress, &bus.Pace{}, time.Now().Add(5*time.Second))
	if !errors.Is(err, bus.ErrFull) || errors.Is(err, bus.ErrUnreachable) {
		t.Fatalf("copying into a stream without room: %v", err)
	}
	if state := f.stream(t).State; float64(state.Bytes) > 0.86*float64(s.MaxBytes) || progress.Sent < 100 || progress.Sent >= 500 {
		t.Errorf("%d bytes of %d, %d sent", state.Bytes, s.MaxBytes, progress.Sent)
	}
	s.MaxBytes = 16 << 20
	if _, err := f.session.EnsureStreams(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	f.finish(t, r, p, progress)
	if n := len(f.copies(t)); n != 500 || progress.Sent != 500 {
		t.Errorf("%d copies, %d sent", n, progress.Sent)
	}
}

func TestReplayedHistoryIsNotTrimmedBeforeItIsRead(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, quickTrim, shortLived())
	f.ensureDurable(t, replayDurable())
	r := replay()
	// The Replay is planned before anything is delivered: then everything may go at once, but for what it has not read.
	for i := range 200 {
		f.event(t, "src", fmt.Sprint("m", i), 10)
	}
	p, matched, _ := f.count(t, r)
	if matched != 200 {
		t.Fatalf("matched %d", matched)
	}
	consume(t, f, "ns_route_db", nil)
	progress := start(p)
	if err := f.session.RecoverReplay(t.Context(), r, p, progress); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // some rounds of the trimmer
	if s := f.stream(t).State; s.FirstSeq != p.First {
		t.Fatalf("trimmed up to %d", s.FirstSeq)
	}
	f.finish(t, r, p, progress)
	eventually(t, 10*time.Second, func() string {
		if s := f.stream(t).State; s.FirstSeq <= p.Last {
			return fmt.Sprintf("what the Replay has read is held still: first sequence %d", s.FirstSeq)
		}
		return ""
	})
	if progress.Sent != 200 {
		t.Errorf("sent %d", progress.Sent)
	}
}

// letter as a sink writes it.
func (f *flow) letter(t *testing.T, route, id, reason string, sequence, redrive uint64, redrives string) uint64 {
	t.Helper()
	m := &nats.Msg{
		Subject: contract.DeadSubject("ns", "intg", route, "db", sequence, redrive), Data: []byte("body of " + id),
		Header: nats.Header{
			contract.HeaderID: {id}, contract.HeaderType: {"arrest"}, contract.HeaderDeadReason: {reason}, contract.HeaderDeadError: {"no"},
			contract.HeaderDeadSequence: {strconv.FormatUint(sequence, 10)}, contract.HeaderDeadMessageID: {"uid-src//" + id},
			contract.HeaderDeadSubject: {contract.EventSubject("ns", "intg", "src", 5, "arrest")},
		},
	}
	if redrives != "" {
		m.Header.Set(contract.HeaderDeadRedrives, redrives)
	}
	ack, err := f.admin.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestDeadLettersAreRedrivenAndRemoved(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	for i := range 10 {
		f.event(t, "src", fmt.Sprint("m", i), 10)
	}
	for i := range 100 {
		reason := contract.DeadReasonRejected
		if i%4 == 0 {
			reason = contract.DeadReasonStepFailed
		}
		redrives := ""
		if i == 1 {
			redrives = "2"
		}
		f.letter(t, "route", fmt.Sprint("m", i), reason, uint64(i+1), 0, redrives)
		f.letter(t, "other", fmt.Sprint("m", i), contract.DeadReasonRejected, uint64(i+1), 0, "")
	}
	r := replay()
	r.Dead, r.Reasons = true, []string{contract.DeadReasonRejected}
	p, matched, _ := f.count(t, r)
	if matched != 75 || p.Stream != "ns_intg_dead" || p.After != 10 {
		t.Fatalf("matched %d of %+v", matched, p)
	}
	progress := start(p)
	f.finish(t, r, p, progress)
	copies := f.copies(t)
	if len(copies) != 75 || progress.Sent != 75 {
		t.Fatalf("%d copies, %d sent", len(copies), progress.Sent)
	}
	for id, list := range copies {
		m := list[0]
		n, _ := strconv.Atoi(strings.TrimPrefix(id, "m"))
		redrives := "1"
		if n == 1 {
			redrives = "3"
		}
		want := map[string]string{
			contract.HeaderReplaySubject: contract.EventSubject("ns", "intg", "src", 5, "arrest"), contract.HeaderReplaySequence: strconv.Itoa(n + 1),
			contract.HeaderReplayMessageID: "uid-src//" + id, contract.HeaderReplayRedrives: redrives,
			contract.HeaderDeadReason: "", contract.HeaderDeadError: "", contract.HeaderDeadSequence: "", contract.HeaderDeadMessageID: "",
		}
		for name, v := range want {
			if m.Header.Get(name) != v {
				t.Errorf("%s: header %s is %q, want %q", id, name, m.Header.Get(name), v)
			}
		}
		if m.Subject != contract.ReplaySubject("ns", "intg", "route", "db", 5) || string(m.Data) != "body of "+id {
			t.Errorf("%s: subject %s, body %s", id, m.Subject, m.Data)
		}
	}
	dead := func() uint64 {
		s, err := f.admin.Stream(t.Context(), "ns_intg_dead")
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Msgs
	}
	if n := dead(); n != 200 {
		t.Fatalf("%d dead letters: copying must not remove any", n)
	}
	half := p.First + 99
	for at := p.First - 1; at < half; {
		var err error
		if at, err = f.session.ClearReplay(t.Context(), r, p, at, half, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if n := dead(); n != 200-37 { // 50 letters of the route, 13 of another reason
		t.Fatalf("%d dead letters after half", n)
	}
	if at, err := f.session.ClearReplay(t.Context(), r, p, p.First-1, p.Last, time.Now().Add(5*time.Second)); err != nil || at != p.Last {
		t.Fatal(at, err)
	}
	if n := dead(); n != 125 {
		t.Errorf("%d dead letters are left, want those of the other route and of the other reason: 125", n)
	}
}

// TestFilterIsAddedToADurableInUse: a durable consumer made before there were Replays gets their subjects while it works. It must neither lose
// nor repeat anything, nor lose its place.
func TestFilterIsAddedToADurableInUse(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("servers=%d", servers), func(t *testing.T) {
			b := bustest.Start(t, bustest.Options{Servers: servers})
			f := newFlow(t, b, nil, streams("ns", "intg"))
			// As the streams were: without the subjects of copies.
			stream, err := f.admin.Stream(t.Context(), "ns_intg")
			if err != nil {
				t.Fatal(err)
			}
			old := stream.CachedInfo().Config
			old.Subjects = slices.DeleteFunc(old.Subjects, func(s string) bool { return strings.HasPrefix(s, contract.ReplayPrefix) })
			if _, err := f.admin.UpdateStream(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				f.event(t, "src", fmt.Sprint("m", i), 10)
				f.event(t, "other", fmt.Sprint("o", i), 10)
			}
			consumer, err := f.admin.Consumer(t.Context(), "ns_intg", "ns_route_db")
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			var unsettled []jetstream.Msg
			take := func(n int, settle bool) {
				batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(5*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				for m := range batch.Messages() {
					seen[m.Headers().Get(contract.HeaderReplayName)+m.Headers().Get(contract.HeaderID)]++
					if !settle {
						unsettled = append(unsettled, m)
					} else if err := m.DoubleAck(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			take(100, true)
			take(50, false)
			var publishing sync.WaitGroup
			publishing.Go(func() {
				for i := 300; i < 600; i++ {
					m := &nats.Msg{Subject: contract.EventSubject("ns", "intg", "src", 1, "arrest"), Header: nats.Header{contract.HeaderID: {fmt.Sprint("m", i)}}}
					if _, err := f.admin.PublishMsg(t.Context(), m); err != nil {
						t.Error(err)
					}
				}
			})
			if changed, err := f.session.EnsureStreams(t.Context(), streams("ns", "intg")); err != nil || !changed {
				t.Fatalf("adding the subjects to the stream: changed %v, %v", changed, err)
			}
			if changed, err := f.session.EnsureDurable(t.Context(), replayDurable()); err != nil || !changed {
				t.Fatalf("adding the filter: changed %v, %v", changed, err)
			}
			eventually(t, 10*time.Second, func() string {
				list, err := f.session.Durables(t.Context(), "ns_intg")
				if err != nil || len(list) != 1 || !slices.Contains(list[0].Filters, contract.ReplayFilter("ns", "intg", "route", "db")) {
					return fmt.Sprintf("%+v %v", list, err)
				}
				return ""
			})
			r := replay()
			r.Last = 20 // ten of the route's
			p, matched, _ := f.count(t, r)
			f.finish(t, r, p, start(p))
			publishing.Wait()
			for _, m := range unsettled {
				if err := m.DoubleAck(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for deadline := time.Now().Add(30 * time.Second); len(seen) < 610 && time.Now().Before(deadline); {
				take(1, true)
			}
			if matched != 10 || len(seen) != 610 {
				t.Errorf("%d messages were delivered, want 600 and 10 copies (%d)", len(seen), matched)
			}
			for id, n := range seen {
				if n != 1 {
					t.Errorf("%s was delivered %d times", id, n)
				}
			}
			info, err := consumer.Info(t.Context())
			if err != nil || info.NumPending != 0 || info.NumAckPending != 0 || info.NumRedelivered != 0 {
				t.Errorf("the durable consumer: %+v, %v", info, err)
			}
		})
	}
}
