package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// tableRoute writes what src publishes into the table wards.
func tableRoute(t testing.TB, s *enginetest.Server, change func(*contract.TableOperation)) contract.Route {
	t.Helper()
	r := routeConfig("r", "d")
	s.Durable("ns", "in", "r", "d", 2*time.Second)
	op := contract.TableOperation{Name: "wards", Key: "data.code", Remove: "has(data.closed)"}
	if change != nil {
		change(&op)
	}
	raw, err := json.Marshal(contract.EventOperation{Table: &op})
	if err != nil {
		t.Fatal(err)
	}
	r.Operation = raw
	return r
}

// entryOf a key in the table wards; nil where there is none.
func entryOf(t testing.TB, s *enginetest.Server, key string) *jetstream.RawStreamMsg {
	t.Helper()
	stream := must(t)(s.Admin().Stream(t.Context(), contract.TableStream("ns", "in", "wards")))
	m, err := stream.GetLastMsgForSubject(t.Context(), contract.TablePrefix("ns", "in", "wards")+contract.StateToken(key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// putEntry writes an entry as a relay does.
func putEntry(t testing.TB, s *enginetest.Server, under, key, format, body string) {
	t.Helper()
	_, err := s.Admin().PublishMsg(t.Context(), &nats.Msg{
		Subject: contract.TablePrefix("ns", "in", "wards") + contract.StateToken(under), Data: []byte(body),
		Header: nats.Header{contract.HeaderTableKey: {escapeHeader(key)}, contract.HeaderTablePosition: {"1"}, contract.HeaderFormat: {format}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTableHoldsTheLastOfEachKey(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Table("ns", "in", "wards", 64<<20)
	r := tableRoute(t, s, nil)
	r.Steps = []contract.Step{{Name: "filter", Filter: "!has(data.skip)"}}
	p := startPod(t, relayPod(s, r))
	first := s.Publish("ns", "in", "src", "x", "m1", []byte(`{"code":"N 1/é*>.","name":"North"}`))
	for id, body := range map[string]string{
		"gone": `{"code":"S1","name":"South"}`, "number": `{"code":7,"name":"Seven"}`, "skipped": `{"code":"skip","skip":1}`,
		"nokey": `{"name":"nobody"}`, "large": `{"code":"L1","x":"` + strings.Repeat("x", contract.MaxTableEntry) + `"}`,
	} {
		s.Publish("ns", "in", "src", "x", id, []byte(body))
	}
	within(t, 20*time.Second, "the first are settled", func() bool { return settledAll(t, s, r.Durable) })
	last := s.Publish("ns", "in", "src", "x", "m2", []byte(`{"code":"N 1/é*>.","name":"North End"}`))
	s.Publish("ns", "in", "src", "x", "removes", []byte(`{"code":"S1","closed":true}`))
	within(t, 20*time.Second, "all are settled", func() bool { return settledAll(t, s, r.Durable) })

	m := entryOf(t, s, "N 1/é*>.")
	if m == nil || string(m.Data) != `{"code":"N 1/é*>.","name":"North End"}` {
		t.Fatalf("the entry is %+v", m)
	}
	for name, want := range map[string]string{
		contract.HeaderTableKey: "N%201/%C3%A9*>.", contract.HeaderTablePosition: fmt.Sprint(last), contract.HeaderFormat: "JSON", contract.HeaderID: "m2", contract.HeaderMarking: "OFFICIAL",
	} {
		if got := m.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if m := entryOf(t, s, "S1"); m == nil || len(m.Data) > 0 || m.Header.Get(headerTTL) != contract.TombstoneAge.String() {
		t.Errorf("the entry that was removed is %+v", m)
	}
	if m := entryOf(t, s, "7"); m == nil {
		t.Error("a number is no key")
	}
	dead := deadErrors(s)
	for id, want := range map[string]string{"nokey": "StepFailed table table: key: no such key: code", "large": "an entry of a table at most 1048576"} {
		if !strings.Contains(dead[id], want) {
			t.Errorf("%s: %q, want %q", id, dead[id], want)
		}
	}
	if len(dead) != 2 {
		t.Errorf("dead letters: %q", dead)
	}

	// An old message that comes again changes nothing; the last one may be written again, in other words.
	replay(t, s, first)
	within(t, 20*time.Second, "the old one is settled", func() bool {
		return settledAll(t, s, r.Durable) && p.metric(`metip_connector_filtered_total{destination="d",route="r"}`) == 2
	})
	if m := entryOf(t, s, "N 1/é*>."); !strings.Contains(string(m.Data), "North End") {
		t.Errorf("an old message has taken the entry: %s", m.Data)
	}
}

// deliveries of a table, written by several pods in any order and more than once, leave what the last message on the bus says.
func TestTableIsWrittenInAnyOrder(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) { writeInAnyOrder(t, startBroker(t)) })
	t.Run("three servers", func(t *testing.T) { // any of which answers what an entry is, perhaps a moment late
		c := enginetest.StartCluster(t, enginetest.Options{Servers: 3})
		c.Streams("ns", "in", streamSize)
		writeInAnyOrder(t, c.Server)
	})
}

func writeInAnyOrder(t *testing.T, s *enginetest.Server) {
	s.Table("ns", "in", "wards", 64<<20)
	r := tableRoute(t, s, nil)
	const keys, each, pods = 150, 4, 3
	var all []*sdk.Delivery
	want := map[string]*sdk.Delivery{}
	for n := range keys * each {
		key := fmt.Sprintf("k%d", n/each)
		d := delivery(fmt.Sprintf("m%d", n), fmt.Sprintf(`{"code":%q,"n":%d}`, key, n))
		if rand.N(10) == 0 {
			d.Data = fmt.Appendf(nil, `{"code":%q,"closed":%d}`, key, n)
		}
		d.Sequence, d.Part = uint64(100+n/2), n%2
		all, want[key] = append(all, d), d
	}
	var wg sync.WaitGroup
	for range pods {
		o := relayPod(s, r)
		conn := newConnection(o.config, o.creds, testLog(t))
		if err := conn.open(o.config, "pod"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.close)
		within(t, 20*time.Second, "a connection", conn.isUp)
		op, err := (&relaySink{conn: conn, who: o.config.Connector}).operation(r)
		if err != nil {
			t.Fatal(err)
		}
		mine := make([]*sdk.Delivery, len(all))
		for i, d := range all {
			mine[i] = delivery(d.ID, string(d.Data))
			mine[i].Sequence, mine[i].Part = d.Sequence, d.Part
		}
		for first := 0; first < len(mine); first += each { // the same keys at about the same time, so that they get in each other's way
			rand.Shuffle(each, func(i, j int) { mine[first+i], mine[first+j] = mine[first+j], mine[first+i] })
		}
		wg.Go(func() {
			for len(mine) > 0 {
				n := min(len(mine), 1+rand.N(3))
				var again []*sdk.Delivery
				for i, err := range op.Write(t.Context(), mine[:n]) {
					switch {
					case err == nil, errors.Is(err, errFiltered):
					case isBus(err): // others write the same entry all the time
						again = append(again, mine[i])
					default:
						t.Error(err)
						return
					}
				}
				mine = append(mine[n:], again...)
			}
		})
	}
	wg.Wait()
	for key, d := range want {
		m := entryOf(t, s, key)
		wantBody := string(d.Data)
		if strings.Contains(wantBody, "closed") {
			wantBody = ""
		}
		if m == nil || string(m.Data) != wantBody || m.Header.Get(contract.HeaderTablePosition) != (position{d.Sequence, d.Part}).String() {
			t.Errorf("%s is %+v, want %s", key, m, wantBody)
		}
	}
}

func TestTableSurvivesKilledPods(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Table("ns", "in", "wards", 64<<20)
	r := tableRoute(t, s, nil)
	const keys, versions = 40, 10
	last := map[string]string{}
	for v := range versions {
		for k := range keys {
			body := fmt.Sprintf(`{"code":"k%d","v":%d}`, k, v)
			if k%4 == 0 && v == versions-1 {
				body = fmt.Sprintf(`{"code":"k%d","closed":%d}`, k, v)
			}
			s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d-%d", k, v), []byte(body))
			last[fmt.Sprintf("k%d", k)] = body
		}
	}
	killing(t, s, relayPod(s, r), 6, func() int {
		return int(must(t)(s.Admin().Stream(t.Context(), contract.TableStream("ns", "in", "wards"))).CachedInfo().State.LastSeq)
	})
	within(t, 60*time.Second, "all settled", func() bool { return settledAll(t, s, r.Durable) })
	for key, want := range last {
		if strings.Contains(want, "closed") {
			want = ""
		}
		if m := entryOf(t, s, key); m == nil || string(m.Data) != want {
			t.Errorf("%s is %+v, want %s", key, m, want)
		}
	}
	if dead := deadErrors(s); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
}

// A full table holds its Route up, says so, and goes on by itself when there is room: a removal makes some even there.
func TestTableIsFull(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Table("ns", "in", "wards", 40<<10)
	r := tableRoute(t, s, nil)
	startPod(t, relayPod(s, r))
	text := strings.Repeat("x", 10<<10)
	for n := range 6 {
		s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d", n), fmt.Appendf(nil, `{"code":%d,"x":%q}`, n, text))
	}
	report(t, s, "in_relay", "pod-1", "that the table is full", 30*time.Second, func(r contract.Report) bool {
		return len(r.Routes) == 1 && r.Routes[0].Reason == contract.ReasonTableFull && strings.Contains(r.Routes[0].Message, "spec.tables[wards].size")
	})
	entries := func() (live, all int) {
		list := s.Messages(contract.TableStream("ns", "in", "wards"))
		for _, m := range list {
			if len(m.Data) > 0 {
				live++
			}
		}
		return live, len(list)
	}
	if live, all := entries(); live != 3 || all != 3 {
		t.Fatalf("%d entries of %d", live, all)
	}
	key := s.Messages(contract.TableStream("ns", "in", "wards"))[0].Header.Get(contract.HeaderTableKey)
	s.Publish("ns", "in", "src", "x", "removes", []byte(`{"code":`+key+`,"closed":true}`))
	within(t, 60*time.Second, "a removal makes room for another", func() bool {
		live, all := entries()
		return live == 3 && all == 4 && len(entryOf(t, s, key).Data) == 0
	})
	s.Table("ns", "in", "wards", 1<<20)
	within(t, 60*time.Second, "all are written", func() bool { return settledAll(t, s, r.Durable) })
	if live, all := entries(); live != 5 || all != 6 {
		t.Errorf("%d entries of %d after it grew", live, all)
	}
	if dead := deadErrors(s); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
	report(t, s, "in_relay", "pod-1", "all is well", 30*time.Second, func(r contract.Report) bool { return r.System.OK && len(r.Routes) == 0 })
}

// lookupRoute looks the ward of each message up.
func lookupRoute(change func(*contract.Enrich)) contract.Route {
	r := routeConfig("r", "d")
	e := &contract.Enrich{Table: "wards", Key: "data.ward", Into: "place.ward", Timeout: contract.Duration(20 * time.Second)}
	if change != nil {
		change(e)
	}
	r.Steps = []contract.Step{{Name: "steps[0] (ward)", Enrich: e}}
	return r
}

func TestEnrichFromATable(t *testing.T) {
	t.Parallel()
	for _, max := range []int{1, 10} {
		t.Run(fmt.Sprintf("batches of %d", max), func(t *testing.T) {
			t.Parallel()
			s := startBroker(t)
			s.Table("ns", "in", "wards", 64<<20)
			putEntry(t, s, "N 1", "N 1", "JSON", ` {"name": "North", "n": 12.10} `)
			putEntry(t, s, "7", "7", "Text", `plain "text"`)
			putEntry(t, s, "removed", "removed", "", "")
			putEntry(t, s, "twin", "another", "JSON", `{"secret":1}`) // whose digest is the same, if that could be
			f := newFakeSink()
			f.max = max
			got := bodiesOf(f)
			p := startSink(t, s, f, lookupRoute(nil))
			for id, body := range map[string]string{
				"json": `{"ward":"N 1"}`, "text": `{"ward":7,"place":{"a":1}}`, "missing": `{"ward":"M"}`, "removed": `{"ward":"removed"}`, "twin": `{"ward":"twin"}`,
				"nokey": `{}`, "list": `{"ward":[1]}`, "empty": `{"ward":""}`,
			} {
				s.Publish("ns", "in", "src", "custody.arrest", id, []byte(body))
			}
			within(t, 60*time.Second, "all are settled", func() bool { return settledAll(t, s, "ns_r_d") })
			for id, want := range map[string]string{
				"json": `{"place":{"ward": {"name": "North", "n": 12.10} },"ward":"N 1"}`, "text": `{"place":{"a":1,"ward":"plain \"text\""},"ward":7}`,
			} {
				if got.get(id) != want {
					t.Errorf("%s: %s, want %s", id, got.get(id), want)
				}
			}
			dead := deadErrors(s)
			unknown := "table wards has no entry for the key of the message, and the step has no default"
			for id, want := range map[string]string{"missing": unknown, "removed": unknown, "twin": unknown, "nokey": "table.key: no such key: ward", "list": "not a text, number or boolean", "empty": "0 bytes"} {
				if !strings.Contains(dead[id], want) || !strings.HasPrefix(dead[id], "StepFailed steps[0] (ward)") || strings.Contains(dead[id], "secret") {
					t.Errorf("%s: %q, want %q", id, dead[id], want)
				}
			}
			if n := p.metric(`metip_connector_enriched_total{destination="d",outcome="answered",route="r"}`); n != 2 || f.count() != 2 {
				t.Errorf("%v answered, %d delivered", n, f.count())
			}
		})
	}
}

func TestEnrichFromATableDefaultAndCache(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Table("ns", "in", "wards", 64<<20)
	putEntry(t, s, "N1", "N1", "JSON", `"North"`)
	f := newFakeSink()
	got := bodiesOf(f)
	p := startSink(t, s, f, lookupRoute(func(e *contract.Enrich) {
		e.Default, e.Into, e.Cache = `{"unknown": data.ward}`, "name", &contract.EnrichCache{TTL: contract.Duration(time.Hour), Entries: 10}
	}))
	s.Publish("ns", "in", "src", "x", "a", []byte(`{"ward":"N1"}`))
	s.Publish("ns", "in", "src", "x", "missing", []byte(`{"ward":"M1"}`))
	within(t, 20*time.Second, "two", func() bool { return f.count() == 2 })
	putEntry(t, s, "N1", "N1", "JSON", `"New"`)
	putEntry(t, s, "M1", "M1", "JSON", `"Middle"`)
	s.Publish("ns", "in", "src", "x", "b", []byte(`{"ward":"N1"}`))
	s.Publish("ns", "in", "src", "x", "found", []byte(`{"ward":"M1"}`))
	within(t, 20*time.Second, "four", func() bool { return f.count() == 4 })
	for id, want := range map[string]string{
		"a": `{"name":"North","ward":"N1"}`, "b": `{"name":"North","ward":"N1"}`, "missing": `{"name":{"unknown":"M1"},"ward":"M1"}`, "found": `{"name":"Middle","ward":"M1"}`,
	} {
		if got.get(id) != want {
			t.Errorf("%s: %s, want %s", id, got.get(id), want)
		}
	}
	for outcome, want := range map[string]float64{"answered": 2, "cached": 1, "missing": 1} {
		if n := p.metric(`metip_connector_enriched_total{destination="d",outcome="` + outcome + `",route="r"}`); n != want {
			t.Errorf("%v %s, want %v", n, outcome, want)
		}
	}
}

// While a table cannot be read, because it is not there yet or the broker is away, messages wait and lose no attempt.
func TestEnrichWaitsForItsTable(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	r := lookupRoute(func(e *contract.Enrich) { e.Timeout = contract.Duration(time.Second) })
	r.Delivery.Attempts = 1
	startSink(t, s, f, r)
	const count = 30
	for n := range count {
		s.Publish("ns", "in", "src", "x", fmt.Sprintf("m%d", n), []byte(`{"ward":"N1"}`))
	}
	report(t, s, "snk", "pod-1", "that the table is not there", 30*time.Second, func(r contract.Report) bool {
		return r.System.OK && len(r.Routes) == 1 && r.Routes[0].Reason == contract.ReasonBrokerUnreachable && strings.Contains(r.Routes[0].Message, "table wards: it is not on the broker yet")
	})
	s.Table("ns", "in", "wards", 1<<20)
	putEntry(t, s, "N1", "N1", "JSON", `{}`)
	within(t, 60*time.Second, "all are delivered", func() bool { return f.count() == count })
	if dead := deadErrors(s); len(dead) > 0 {
		t.Errorf("dead letters: %q", dead)
	}
	report(t, s, "snk", "pod-1", "all is well", 30*time.Second, func(r contract.Report) bool { return r.System.OK && len(r.Routes) == 0 })

	s.Stop()
	s.Boot()
	s.Publish("ns", "in", "src", "x", "after", []byte(`{"ward":"N1"}`))
	within(t, 60*time.Second, "one after the restart", func() bool { return f.has("after") })
}

func TestPositions(t *testing.T) {
	for _, p := range []position{{1, 0}, {1, 1}, {18446744073709551615, 999}} {
		if got, err := parsePosition(p.String()); err != nil || got != p {
			t.Errorf("%v is read as %v, %v", p, got, err)
		}
	}
	for _, text := range []string{"", "x", "1.", "-1", "1.x"} {
		if p, err := parsePosition(text); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
	if !(position{1, 9}).before(position{2, 0}) || !(position{1, 0}).before(position{1, 1}) || (position{1, 1}).before(position{1, 1}) {
		t.Error("the order of positions")
	}
}
