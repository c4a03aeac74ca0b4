package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// stateBroker has the stream of the state besides.
func stateBroker(t testing.TB) *enginetest.Server {
	t.Helper()
	s := startBroker(t)
	_, err := s.Admin().CreateStream(t.Context(), jetstream.StreamConfig{
		Name: contract.StateStream("ns", "in"), Subjects: []string{contract.StateSubjects("ns", "in")}, MaxBytes: streamSize, MaxMsgsPerSubject: 1,
		Discard: jetstream.DiscardNew, AllowDirect: true, AllowMsgTTL: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func statefulRoute(t testing.TB, s *enginetest.Server, step contract.Step) contract.Route {
	t.Helper()
	r := eventRoute(t, s, "r", "out", 2*time.Second, "src.>")
	step.Name = "steps[0]"
	r.UID, r.Steps = "uid-r", []contract.Step{step}
	return r
}

// killing runs pods of a relay that are cut off in mid-flow, until done says so, and at last one that lives.
func killing(t *testing.T, s *enginetest.Server, options podOptions, kills int, progress func() int) {
	t.Helper()
	for kill := range kills {
		cut := startProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
		o, config := options, *options.config
		o.name, o.grace = fmt.Sprintf("pod-%d", kill), 50*time.Millisecond
		config.Broker.URLs = []string{cut.url()}
		o.config = &config
		p := startPod(t, o)
		before := progress()
		// At any point of the work, unless all of it is done.
		within(t, 60*time.Second, "some progress", func() bool { return progress() > before+kill%7 || settledAll(t, s, "ns_r_d") })
		cut.cut()
		p.stop()
	}
	startPod(t, options)
}

func TestDeduplicate(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	options := relayPod(s, statefulRoute(t, s, contract.Step{Deduplicate: &contract.Deduplicate{Key: "data.key", Window: contract.Duration(time.Hour)}}))
	const keys, copies = 60, 5
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := range copies {
			for k := range keys {
				s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d-%d", k, c), fmt.Appendf(nil, `{"key":"k%d"}`, k))
			}
		}
	}()
	killing(t, s, options, 5, func() int { return len(events(s, "out")) })
	<-done
	within(t, 60*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	seen := map[string]int{}
	for _, m := range events(s, "out") {
		seen[string(m.Data)]++
	}
	for k := range keys {
		if n := seen[fmt.Sprintf(`{"key":"k%d"}`, k)]; n != 1 {
			t.Errorf("key %d passed %d times", k, n)
		}
	}
	s.Publish("ns", "in", "src", "x", "nokey", []byte(`{"other":1}`))
	within(t, 20*time.Second, "a dead letter", func() bool { return len(s.Messages("ns_in_dead")) == 1 })
	if h := s.Messages("ns_in_dead")[0].Header; h.Get(contract.HeaderDeadReason) != contract.DeadReasonStepFailed || h.Get(contract.HeaderDeadStep) != "steps[0]" {
		t.Errorf("the dead letter says %q", h)
	}
}

func TestDeduplicateWindow(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	startPod(t, relayPod(s, statefulRoute(t, s, contract.Step{Deduplicate: &contract.Deduplicate{Key: "data.key", Window: contract.Duration(2 * time.Second)}})))
	n := 0
	send := func() {
		n++
		s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d", n), []byte(`{"key":"k"}`))
	}
	send()
	within(t, 20*time.Second, "the first", func() bool { return len(events(s, "out")) == 1 })
	within(t, 30*time.Second, "another after the window", func() bool {
		send()
		return len(events(s, "out")) == 2
	})
}

// Groups are complete and exact however often pods are killed while they are filled, completed and published.
func TestAggregateIsExact(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	options := relayPod(s, statefulRoute(t, s, contract.Step{Aggregate: &contract.Aggregate{Key: "data.group", Count: 10}}))
	const groups, size = 100, 10
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range size {
			for g := range groups {
				s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d-%d", g, n), fmt.Appendf(nil, `{"group":%d,"n":%d,"text":"<&>"}`, g, n))
			}
		}
	}()
	killing(t, s, options, 20, func() int {
		info := must(t)(s.Admin().Stream(t.Context(), contract.StateStream("ns", "in"))).CachedInfo()
		return int(info.State.LastSeq)
	})
	<-done
	within(t, 120*time.Second, "all groups", func() bool { return len(events(s, "out")) >= groups })
	within(t, 60*time.Second, "all settled", func() bool { return settledAll(t, s, "ns_r_d") })
	seen := map[int]int{}
	for _, m := range events(s, "out") {
		var members []struct {
			Group, N int
			Text     string
		}
		if err := json.Unmarshal(m.Data, &members); err != nil || len(members) != size {
			t.Fatalf("%s: %v", m.Data, err)
		}
		var numbers []int
		for _, member := range members {
			if member.Group != members[0].Group || member.Text != "<&>" {
				t.Errorf("group %d has a member %+v", members[0].Group, member)
			}
			numbers = append(numbers, member.N)
		}
		slices.Sort(numbers)
		if len(slices.Compact(numbers)) != size {
			t.Errorf("group %d has members twice: %s", members[0].Group, m.Data)
		}
		seen[members[0].Group]++
		if h := m.Header; h.Get("ce-aggregatecompletion") != "Count" || h.Get("ce-aggregatesize") != "10" || h.Get("ce-partitionkey") != strconv.Itoa(members[0].Group) || h.Get("ce-marking") != "OFFICIAL" {
			t.Errorf("headers %q", h)
		}
	}
	for g := range groups {
		if seen[g] != 1 {
			t.Errorf("group %d was completed %d times", g, seen[g])
		}
	}
	if dead := s.Messages("ns_in_dead"); len(dead) > 0 {
		t.Errorf("%d dead letters: %s", len(dead), dead[0].Header.Get(contract.HeaderDeadError))
	}
}

// A time-out completes a group that nobody adds to any more, also when the pod that began it is gone; so does the message that says it is the last.
func TestAggregateTimeoutAndWhen(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	options := relayPod(s, statefulRoute(t, s, contract.Step{Aggregate: &contract.Aggregate{
		Key: "data.group", When: "has(data.last)", Timeout: contract.Duration(4 * time.Second),
	}}))
	cut := startProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
	first, config := options, *options.config
	config.Broker.URLs = []string{cut.url()}
	first.name, first.config, first.grace = "pod-0", &config, 50*time.Millisecond
	p := startPod(t, first)
	begun := time.Now()
	for n, body := range []string{`{"group":"a"}`, `{"group":"b"}`, `{"group":"a","last":true}`} {
		s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d", n), []byte(body))
	}
	within(t, 20*time.Second, "the group that was told its last", func() bool { return len(events(s, "out")) == 1 })
	within(t, 20*time.Second, "all taken in", func() bool { return settledAll(t, s, "ns_r_d") })
	cut.cut()
	p.stop()
	startPod(t, options)
	within(t, 60*time.Second, "the group whose time is over", func() bool { return len(events(s, "out")) == 2 })
	if took := time.Since(begun); took < 4*time.Second {
		t.Errorf("after %s already", took)
	}
	for i, want := range []string{`[{"group":"a"},{"group":"a","last":true}] When`, `[{"group":"b"}] Timeout`} {
		m := events(s, "out")[i]
		if got := string(m.Data) + " " + m.Header.Get("ce-aggregatecompletion"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestResequence(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	options := relayPod(s, statefulRoute(t, s, contract.Step{Resequence: &contract.Resequence{
		Key: "data.key", Number: "data.n", Start: 1, Timeout: contract.Duration(20 * time.Second),
	}}))
	const keys, each = 10, 40
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range each {
			for k := range keys {
				// In blocks of eight, backwards.
				number := n/8*8 + 8 - n%8
				s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d-%d", k, number), fmt.Appendf(nil, `{"key":%d,"n":%d}`, k, number))
			}
		}
	}()
	killing(t, s, options, 6, func() int { return len(events(s, "out")) })
	<-done
	within(t, 90*time.Second, "all of them", func() bool { return len(events(s, "out")) >= keys*each })
	next := map[int]int{}
	for _, m := range events(s, "out") {
		var body struct{ Key, N int }
		if err := json.Unmarshal(m.Data, &body); err != nil {
			t.Fatal(err)
		}
		if next[body.Key]++; body.N != next[body.Key] {
			t.Fatalf("key %d: number %d in place of %d", body.Key, body.N, next[body.Key])
		}
	}
	// A number that is missing is waited for, and no longer than the time-out.
	s.Publish("ns", "in", "src", "x", "late-3", []byte(`{"key":99,"n":3}`))
	s.Publish("ns", "in", "src", "x", "late-2", []byte(`{"key":99,"n":2}`))
	within(t, 60*time.Second, "those behind the gap", func() bool { return len(events(s, "out")) == keys*each+2 })
	s.Publish("ns", "in", "src", "x", "late-1", []byte(`{"key":99,"n":1}`))
	within(t, 20*time.Second, "a dead letter", func() bool { return len(s.Messages("ns_in_dead")) == 1 })
	if h := s.Messages("ns_in_dead")[0].Header; h.Get(contract.HeaderDeadReason) != contract.DeadReasonStepFailed || h.Get(contract.HeaderID) != "late-1" {
		t.Errorf("the dead letter says %q", h)
	}
}

// What reaches the limits of a group is completed at once.
func TestAggregateIsBounded(t *testing.T) {
	a := &aggregator{Aggregate: contract.Aggregate{When: "false"}, event: func(_ string, group uint64, members []member, why string) storedEvent {
		return storedEvent{Subject: fmt.Sprintf("%d %d %s", group, len(members), why)}
	}}
	doc := &stateDoc{}
	take := func(id string, size int) error {
		return a.take(doc, &input{Delivery: delivery(id, fmt.Sprintf(`"%s"`, strings.Repeat("x", size)))}, time.Now())
	}
	for n := range contract.MaxMembers + 1 {
		if err := take(fmt.Sprint(n), 10); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		if err := take(fmt.Sprint("large-", n), 1<<20-100); err != nil {
			t.Fatal(err)
		}
	}
	if err := take("too large", contract.MaxMemberBytes); err == nil {
		t.Error("a member that is larger than a group may be")
	}
	if err := take("5", 10); err != nil || len(doc.Members) != 1 {
		t.Errorf("one that was taken in before: %v, %d members", err, len(doc.Members))
	}
	var got []string
	for _, e := range doc.Out {
		got = append(got, e.Subject)
	}
	if want := []string{"1 1000 Full", "2 3 Full"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func delivery(id, body string) *sdk.Delivery {
	return &sdk.Delivery{Message: &sdk.Message{ID: id, Format: sdk.FormatJSON, Data: []byte(body)}, MessageID: id}
}

// The parts of a message are messages of their own to a step that keeps state, and come back together.
func TestPartsAreCorrelated(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	split := contract.Step{Name: "steps[0]", Split: &contract.Split{Items: "data.items"}}
	once := eventRoute(t, s, "once", "once", 2*time.Second, "src.>")
	once.UID, once.Steps = "uid-once", []contract.Step{split, {Name: "steps[1]", Deduplicate: &contract.Deduplicate{Key: "data.k", Window: contract.Duration(time.Hour)}}}
	whole := eventRoute(t, s, "whole", "whole", 2*time.Second, "src.>")
	whole.UID, whole.Steps = "uid-whole", []contract.Step{split, {Name: "steps[1]", Aggregate: &contract.Aggregate{Key: "headers.splitid", Count: 3}}}
	startPod(t, relayPod(s, once, whole))
	s.Publish("ns", "in", "src", "x", "m1", []byte(`{"items":[{"k":"a"},{"k":"b"},{"k":"a"}]}`))
	within(t, 20*time.Second, "the whole", func() bool { return len(events(s, "whole")) == 1 })
	within(t, 20*time.Second, "all settled", func() bool {
		return len(events(s, "once")) == 2 && settledAll(t, s, once.Durable) && settledAll(t, s, whole.Durable)
	})
	if got := string(events(s, "whole")[0].Data); got != `[{"k":"a"},{"k":"b"},{"k":"a"}]` {
		t.Errorf("the whole is %s", got)
	}
	if dead := s.Messages("ns_in_dead"); len(dead) > 0 {
		t.Errorf("%d dead letters: %s", len(dead), dead[0].Header.Get(contract.HeaderDeadError))
	}
}

// A circle ends although each round makes parts: their hops are their original's.
func TestCircleOfPartsEnds(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	there := eventRoute(t, s, "there", "a", 10*time.Second, "src.>", "_relay.b")
	there.Steps = []contract.Step{{Name: "steps[0]", Split: &contract.Split{Items: "[data]"}}}
	back := eventRoute(t, s, "back", "b", 10*time.Second, "_relay.a")
	startPod(t, relayPod(s, there, back))
	s.Publish("ns", "in", "src", "x", "m1", []byte(`{}`))
	within(t, 20*time.Second, "a dead letter", func() bool { return len(s.Messages("ns_in_dead")) == 1 })
	if made := len(events(s, "a")) + len(events(s, "b")); made != contract.MaxHops {
		t.Errorf("%d events were made, want %d", made, contract.MaxHops)
	}
	if h := s.Messages("ns_in_dead")[0].Header; h.Get(contract.HeaderDeadReason) != contract.DeadReasonHopLimit {
		t.Errorf("the dead letter says %q", h)
	}
}

// What waits for others when its step is removed from the Route, or becomes one of another kind, has been acknowledged: it passes.
func TestRemovedStepLeavesNothing(t *testing.T) {
	t.Parallel()
	s := stateBroker(t)
	wait := func(members int) {
		t.Helper()
		within(t, 20*time.Second, "all taken in", func() bool {
			found := 0
			for _, m := range s.Messages(contract.StateStream("ns", "in")) {
				var doc stateDoc
				if err := json.Unmarshal(m.Data, &doc); err == nil {
					found += len(doc.Members) + len(doc.Waiting)
				}
			}
			return found == members && settledAll(t, s, "ns_r_d")
		})
	}
	aggregate := statefulRoute(t, s, contract.Step{Aggregate: &contract.Aggregate{Key: "data.group", Count: 3}})
	p := startPod(t, relayPod(s, aggregate))
	for n := range 2 {
		s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d", n), fmt.Appendf(nil, `{"group":"a","n":%d}`, n))
	}
	wait(2)
	p.stop()
	resequence := aggregate
	resequence.Steps = []contract.Step{{Name: "steps[0]", Resequence: &contract.Resequence{Number: "data.n", Start: 1, Timeout: contract.Duration(time.Hour)}}}
	p = startPod(t, relayPod(s, resequence))
	within(t, 30*time.Second, "the group", func() bool { return len(events(s, "out")) == 1 })
	if m := events(s, "out")[0]; string(m.Data) != `[{"group":"a","n":0},{"group":"a","n":1}]` || m.Header.Get("ce-aggregatecompletion") != "Removed" {
		t.Errorf("%s %q", m.Data, m.Header)
	}
	for _, n := range []int{5, 3} {
		s.Publish("ns", "in", "src", "x", fmt.Sprintf("n%d", n), fmt.Appendf(nil, `{"n":%d}`, n))
	}
	wait(2)
	p.stop()
	plain := aggregate
	plain.Steps = nil
	startPod(t, relayPod(s, plain))
	within(t, 30*time.Second, "those that waited", func() bool { return len(events(s, "out")) == 3 })
	if first, second := string(events(s, "out")[1].Data), string(events(s, "out")[2].Data); first != `{"n":3}` || second != `{"n":5}` {
		t.Errorf("%s before %s", first, second)
	}
}

// An Integration that keeps no state has no stream for it, which is soon found out.
func TestThereIsNoState(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	creds := s.CredsFile("relay", contract.RelayPermissions("ns", "in", nil), time.Hour)
	nc, err := nats.Connect(s.URL(), nats.UserCredentials(creds), nats.CustomInboxPrefix(contract.InboxPrefix("ns", contract.RelayName("in"))))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	err = newStateStore(nc, contract.StateStream("ns", "in")).scan(t.Context(), "state.ns.in.uid.d.", func(string, *stateDoc) {})
	if !errors.Is(err, errNoState) {
		t.Error(err)
	}
}
