package bus_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// withClaims has room for claims, and keeps what shortLived does.
func withClaims() bus.Streams {
	s := shortLived()
	s.ClaimsMaxBytes = 64 << 20
	return s
}

// claimFlow is a flow whose source checks bodies in.
type claimFlow struct {
	*flow
	large jetstream.JetStream
	next  int
}

func newClaimFlow(t *testing.T, s bus.Streams) *claimFlow {
	t.Helper()
	f := &claimFlow{flow: newFlow(t, bustest.Start(t, bustest.Options{}), quickTrim, s)}
	f.large = edgeJetStream(t, f.user(t, "src", contract.SourcePermissions("ns", "intg", "src").WithClaims("ns", "intg", "src")))
	return f
}

// upload a claim of some chunks, and return it.
func (f *claimFlow) upload(t *testing.T, chunks int) contract.Claim {
	t.Helper()
	f.next++
	c := contract.Claim{ID: fmt.Sprintf("%032x", f.next), Size: int64(chunks) * contract.ClaimChunk, Chunk: contract.ClaimChunk, Digest: strings.Repeat("0", 64)}
	for i := range chunks {
		if _, err := f.large.Publish(t.Context(), contract.ClaimChunkSubject("ns", "intg", "src", c.ID, i), make([]byte, contract.ClaimChunk)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// name a claim by an event.
func (f *claimFlow) name(t *testing.T, c contract.Claim) {
	t.Helper()
	m := nats.NewMsg(contract.EventSubject("ns", "intg", "src", 0, "x"))
	m.Header.Set(contract.HeaderClaim, c.String())
	m.Header.Set(contract.HeaderID, c.ID)
	m.Header.Set(headerMsgID, c.ID)
	if _, err := f.large.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

const headerMsgID = "Nats-Msg-Id"

// has a claim any chunk.
func (f *claimFlow) has(t *testing.T, c contract.Claim) bool {
	t.Helper()
	stream, err := f.admin.Stream(t.Context(), contract.ClaimStream("ns", "intg"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(contract.ClaimChunks("ns", "intg", "src", c.ID)))
	if err != nil {
		t.Fatal(err)
	}
	return len(info.State.Subjects) > 0
}

func (f *claimFlow) gone(t *testing.T, c contract.Claim, what string) {
	t.Helper()
	eventually(t, 40*time.Second, func() string {
		if f.has(t, c) {
			return "the claim is still there: " + what
		}
		return ""
	})
}

// kept looks for some rounds of the cleaner, longer than a claim rests that is named no more.
func (f *claimFlow) kept(t *testing.T, c contract.Claim, what string) {
	t.Helper()
	for range 30 {
		if !f.has(t, c) {
			t.Fatalf("the claim is gone: %s", what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// letter of a claim.
func (f *claimFlow) letter(t *testing.T, c contract.Claim, sequence uint64) string {
	t.Helper()
	m := nats.NewMsg(contract.DeadSubject("ns", "intg", "route", "db", sequence, 0))
	m.Header.Set(contract.HeaderClaim, c.String())
	m.Header.Set(contract.HeaderID, c.ID)
	m.Header.Set(contract.HeaderDeadSubject, contract.EventSubject("ns", "intg", "src", 0, "x"))
	m.Header.Set(contract.HeaderDeadSequence, fmt.Sprint(sequence))
	if _, err := f.admin.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m.Subject
}

func (f *claimFlow) purge(t *testing.T, stream string, o ...jetstream.StreamPurgeOpt) {
	t.Helper()
	s, err := f.admin.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), o...); err != nil {
		t.Fatal(err)
	}
}

func TestClaimsLiveAsLongAsTheirEvents(t *testing.T) {
	f := newClaimFlow(t, withClaims())
	owed := f.upload(t, 3)
	f.name(t, owed)
	f.kept(t, owed, "it has not been delivered")
	other := f.upload(t, 1)
	consume(t, f.flow, "ns_route_db", nil)
	f.gone(t, owed, "its event was delivered, and trimmed")
	f.kept(t, other, "its event may still come")
	f.gone(t, other, "no event has come for long")
}

func TestClaimsThatAreGivenUpGoAtOnceUnlessAnEventNamesThem(t *testing.T) {
	f := newClaimFlow(t, withClaims())
	named, free := f.upload(t, 1), f.upload(t, 1)
	f.name(t, named)
	for _, c := range []contract.Claim{named, free} {
		if _, err := f.large.Publish(t.Context(), contract.ClaimVoidSubject("ns", "intg", "src", c.ID), []byte("void")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 8*time.Second, func() string { // sooner than the cleaner takes it for an orphan
		if f.has(t, free) {
			return "it is still there"
		}
		return ""
	})
	f.kept(t, named, "only the confirmation of its event was lost")
}

// TestClaimsFollowTheirMessages: from the events to the dead letters, by a Replay back to the events, and away.
func TestClaimsFollowTheirMessages(t *testing.T) {
	f := newClaimFlow(t, withClaims())
	c := f.upload(t, 2)
	f.name(t, c)
	subject := f.letter(t, c, 1)
	consume(t, f.flow, "ns_route_db", nil)
	eventually(t, 20*time.Second, func() string {
		if s := f.stream(t).State; s.FirstSeq <= 1 {
			return "the event is not trimmed"
		}
		return ""
	})
	f.kept(t, c, "a dead letter names it")
	// The copy is owed to a destination that nobody reads.
	f.ensureDurable(t, durable("ns", "intg", "slow", "db", "nobody"))
	copied := nats.NewMsg(contract.ReplaySubject("ns", "intg", "slow", "db", 0))
	copied.Header.Set(contract.HeaderClaim, c.String())
	if _, err := f.admin.PublishMsg(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	f.purge(t, contract.DeadStream("ns", "intg"), jetstream.WithPurgeSubject(subject))
	f.kept(t, c, "a Replay's copy names it")
	again := f.letter(t, c, 2)
	consume(t, f.flow, "ns_slow_db", nil)
	f.kept(t, c, "another dead letter names it")
	f.purge(t, contract.DeadStream("ns", "intg"), jetstream.WithPurgeSubject(again))
	f.gone(t, c, "nothing names it")
}

// TestARestartedOperatorKnowsWhatIsNamed: what it has not seen itself it reads.
func TestARestartedOperatorKnowsWhatIsNamed(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := withClaims()
	s.Retention = time.Hour
	f := &claimFlow{flow: newFlow(t, b, nil, s)} // an operator that looks every 15 s, if it comes to that
	f.large = edgeJetStream(t, f.user(t, "src", contract.SourcePermissions("ns", "intg", "src").WithClaims("ns", "intg", "src")))
	event, letter, orphan := f.upload(t, 1), f.upload(t, 1), f.upload(t, 1)
	f.name(t, event)
	f.letter(t, letter, 7)
	_, registry := b.Session(quickTrim)
	f.gone(t, orphan, "nothing names it")
	eventually(t, 10*time.Second, func() string {
		counts := map[types.NamespacedName]bus.ClaimCount{}
		registry.ClaimCounts(func(i types.NamespacedName, n bus.ClaimCount) { counts[i] = n })
		want := map[types.NamespacedName]bus.ClaimCount{
			{Namespace: "ns", Name: "intg"}: {Held: 2, Dropped: 1, HeldBytes: 2 * contract.ClaimChunk, DroppedBytes: contract.ClaimChunk},
		}
		return cmp.Diff(want, counts)
	})
	f.kept(t, event, "an event names it")
	f.kept(t, letter, "a dead letter names it")
}

// TestCrowdedClaimsTrimWhatWasDelivered: before its retention, and never what is owed.
func TestCrowdedClaimsTrimWhatWasDelivered(t *testing.T) {
	s := withClaims()
	s.Retention, s.ClaimsMaxBytes = 24*time.Hour, 16<<20
	f := newClaimFlow(t, s)
	var all []contract.Claim
	for range 4 {
		c := f.upload(t, 7) // 3.5 MiB each: together above 70 %
		f.name(t, c)
		all = append(all, c)
	}
	f.kept(t, all[0], "it is owed, though there is little room")
	consume(t, f.flow, "ns_route_db", nil)
	f.gone(t, all[0], "it was delivered, and there is little room")
	f.kept(t, all[3], "there is room enough for it")
	if s := f.stream(t).State; s.FirstSeq > 4 {
		t.Errorf("the events were trimmed up to %d", s.FirstSeq)
	}
}

func TestPermissionsOfClaims(t *testing.T) {
	f := newClaimFlow(t, withClaims())
	mine, stream := f.upload(t, 1), contract.ClaimStream("ns", "intg")
	foreign := contract.ClaimChunkSubject("ns", "intg", "other", mine.ID, 0)
	if _, err := f.admin.Publish(t.Context(), foreign, []byte("another's secret")); err != nil {
		t.Fatal(err)
	}
	chunk := contract.ClaimChunkSubject("ns", "intg", "src", mine.ID, 0)
	get := contract.APIPrefix + ".DIRECT.GET." + stream
	writer := f.user(t, "src", contract.SourcePermissions("ns", "intg", "src").WithClaims("ns", "intg", "src"))
	reader := f.user(t, "reader", contract.SinkPermissions("ns", "reader", []contract.SinkDestination{{Integration: "intg", Route: "route", Destination: "db", Sources: []string{"src"}}}))
	answer, err := reader.Request(get+"."+chunk, nil, 5*time.Second)
	if err != nil || len(answer.Data) != contract.ClaimChunk {
		t.Fatalf("a reader gets %v, %v", answer, err)
	}
	// A body that asks for something else is not heeded.
	answer, err = reader.Request(get+"."+chunk, []byte(`{"last_by_subj":"`+foreign+`"}`), 5*time.Second)
	if err == nil && answer.Header.Get("Nats-Subject") != chunk && answer.Header.Get("Status") == "" {
		t.Errorf("a request for a chunk of its own gave %s", answer.Header.Get("Nats-Subject"))
	}
	for _, try := range []struct {
		who     string
		nc      *nats.Conn
		subject string
	}{
		{"reader", reader, get + "." + foreign}, {"reader", reader, get}, {"reader", reader, chunk}, {"reader", reader, contract.ClaimVoidSubject("ns", "intg", "src", mine.ID)},
		{"reader", reader, contract.APIPrefix + ".STREAM.PURGE." + stream}, {"reader", reader, contract.APIPrefix + ".STREAM.MSG.GET." + stream},
		{"writer", writer, get + "." + chunk}, {"writer", writer, foreign}, {"writer", writer, contract.APIPrefix + ".STREAM.PURGE." + stream},
		{"source without claims", f.source, contract.ClaimChunkSubject("ns", "intg", "src", mine.ID, 5)},
		{"sink of no source", f.sink, get + "." + chunk},
	} {
		if !refused(t, try.nc, try.subject) {
			t.Errorf("%s may publish %s", try.who, try.subject)
		}
	}
	// What was written cannot be exchanged, rolled up or outlived.
	for _, header := range []nats.Header{{}, {"Nats-Rollup": {"all"}}, {"Nats-Rollup": {"sub"}}, {"Nats-TTL": {"1s"}}, {"Nats-Schedule": {"@every 1s"}}} {
		m := &nats.Msg{Subject: chunk, Header: header, Data: []byte("other")}
		if _, err := f.large.PublishMsg(t.Context(), m); err == nil {
			t.Errorf("a chunk was written again with %v", header)
		}
	}
	if answer, err = reader.Request(get+"."+chunk, nil, 5*time.Second); err != nil || len(answer.Data) != contract.ClaimChunk {
		t.Errorf("the chunk is %d bytes now, %v", len(answer.Data), err)
	}
}
