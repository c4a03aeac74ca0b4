package engine

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
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

const relayed = "evt.ns.in._relay."

// eventRoute delivers to an event of the type, and reads the types of event that are named: `src.custody.arrest`, `_relay.police.arrest`.
func eventRoute(t testing.TB, s *enginetest.Server, name, eventType string, ackWait time.Duration, from ...string) contract.Route {
	t.Helper()
	r := routeConfig(name, "d")
	raw, err := json.Marshal(contract.EventOperation{Type: eventType})
	if err != nil {
		t.Fatal(err)
	}
	r.Operation = raw
	filters := []string{contract.MarkSubject("ns", "in")}
	for _, f := range from {
		connector, types, _ := strings.Cut(f, ".")
		filters = append(filters, contract.EventFilter("ns", "in", connector, types))
	}
	_, err = s.Admin().CreateOrUpdateConsumer(t.Context(), r.Stream, jetstream.ConsumerConfig{
		Durable: r.Durable, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, FilterSubjects: filters,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// relayPod is a pod that makes events.
func relayPod(s *enginetest.Server, routes ...contract.Route) podOptions {
	var destinations []contract.SinkDestination
	for _, r := range routes {
		destinations = append(destinations, contract.SinkDestination{Integration: r.Integration, Route: r.Name, Destination: r.Destination})
	}
	return podOptions{
		config: &contract.Config{
			Version: contract.ConfigVersion, Hash: "h1",
			Connector: contract.Connector{Namespace: "ns", Name: contract.RelayName("in"), UID: "uid-in", Integration: "in", Marking: "OFFICIAL"},
			Broker:    s.Broker(),
			Sink:      &contract.Sink{System: contract.System{Type: contract.RelaySystem, Options: json.RawMessage(`{}`)}, Routes: routes},
		},
		creds: s.CredsFile("relay", contract.RelayPermissions("ns", "in", destinations, contract.EnrichServices(routes)...).
			WithTables("ns", contract.ReadTables(routes), contract.WrittenTables(routes)), time.Hour),
	}
}

// events that relays have made, of a type.
func events(s *enginetest.Server, eventType string) []*jetstream.RawStreamMsg {
	var out []*jetstream.RawStreamMsg
	for _, m := range s.Messages("ns_in") {
		if strings.HasPrefix(m.Subject, relayed) && strings.HasSuffix(m.Subject, "."+eventType) {
			out = append(out, m)
		}
	}
	return out
}

func TestRelayMakesEvents(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsync %v", fsync), func(t *testing.T) {
			s := enginetest.Start(t, enginetest.Options{Fsync: fsync})
			s.Streams("ns", "in", streamSize)
			r := eventRoute(t, s, "r", "police.arrest", 10*time.Second, "src.custody.arrest")
			r.Steps = []contract.Step{{Name: "filter", Filter: "data.n != 3"}, {Name: "steps[0]", JQ: "{number: .n}"}}
			second := eventRoute(t, s, "second", "police.arrest.v2", 10*time.Second, "_relay.police.arrest")
			startPod(t, relayPod(s, r, second))
			trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			_, err := s.Admin().PublishMsg(t.Context(), &nats.Msg{
				Subject: contract.EventSubject("ns", "in", "src", contract.Slot("key é"), "custody.arrest"), Data: []byte(`{"n": 1}`),
				Header: nats.Header{
					"Nats-Msg-Id": {"uid-src//m 1"}, contract.HeaderSpecVersion: {"1.0"}, contract.HeaderID: {"m%201"}, contract.HeaderType: {"custody.arrest"},
					contract.HeaderSource: {"https://custody.example/a"}, contract.HeaderTime: {"2026-01-02T03:04:05.6Z"}, contract.HeaderAccepted: {"2026-01-02T03:04:06Z"},
					contract.HeaderFormat: {"JSON"}, contract.HeaderContentType: {"application/vnd.custody+json"}, contract.HeaderPartitionKey: {"key%20%C3%A9"},
					contract.HeaderTraceParent: {trace}, contract.HeaderTraceState: {"a=b"}, contract.HeaderSubject: {"cell-4"},
					contract.HeaderMarking: {"SECRET"}, "ce-severity": {"5"}, "metip-replay-name": {"x"},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			s.Publish("ns", "in", "src", "custody.arrest", "m2", []byte(`{"n": 2}`))
			s.Publish("ns", "in", "src", "custody.arrest", "m3", []byte(`{"n": 3}`))
			within(t, 20*time.Second, "two events of the second type", func() bool { return len(events(s, "police.arrest.v2")) == 2 })

			got := events(s, "police.arrest")[0]
			slot := fmt.Sprint(contract.Slot("key é"))
			if got.Subject != relayed+slot+".police.arrest" || string(got.Data) != `{"number":1}` {
				t.Errorf("%s: %s", got.Subject, got.Data)
			}
			want := map[string]string{
				"Nats-Msg-Id": "_relay/r/d/0/uid-src//m%201", "ce-id": "m%201", "ce-source": "/metip/ns/in/_relay/r/d?from=https://custody.example/a",
				"ce-type": "police.arrest", "ce-specversion": "1.0", "ce-time": "2026-01-02T03:04:05.6Z", "ce-subject": "cell-4", "ce-marking": "SECRET",
				"ce-severity": "5", "ce-partitionkey": "key%20%C3%A9", "content-type": "application/json", "metip-format": "JSON",
				"metip-accepted": "2026-01-02T03:04:06Z", "metip-hops": "1", "traceparent": trace, "tracestate": "a=b",
			}
			for name, value := range want {
				if got.Header[name] == nil || got.Header[name][0] != value {
					t.Errorf("header %s is %q, want %q", name, got.Header[name], value)
				}
			}
			for name := range got.Header {
				if _, ok := want[name]; !ok && !isBroker(name) {
					t.Errorf("header %s: %q came along", name, got.Header[name])
				}
			}
			again := events(s, "police.arrest.v2")
			if h := again[0].Header; h.Get("metip-hops") != "2" || h.Get("ce-source") != "/metip/ns/in/_relay/second/d?from=/metip/ns/in/_relay/r/d?from=https://custody.example/a" {
				t.Errorf("the second hop: %q", h)
			}
			if marking := again[1].Header.Get("ce-marking"); marking != "OFFICIAL" {
				t.Errorf("a message without marking has %q, want the Integration's", marking)
			}
			report(t, s, "in_relay", "pod-1", "all is well", 10*time.Second, func(r contract.Report) bool { return r.System.OK && r.Bus.OK && len(r.Routes) == 0 })
		})
	}
}

func TestRelayUserReachesItsOwnSubjectsAlone(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Streams("ns", "other", streamSize)
	r := eventRoute(t, s, "r", "police.arrest", 10*time.Second, "src.>")
	relay, source := relayPod(s, r).creds, s.CredsFile("src", contract.SourcePermissions("ns", "in", "src"), time.Hour)
	for _, c := range []struct {
		creds, inbox, subject string
		allowed               bool
	}{
		{relay, "ns_in_relay", relayed + "3.police.arrest", true},
		{relay, "ns_in_relay", "evt.ns.in.src.3.custody.arrest", false},
		{relay, "ns_in_relay", "evt.ns.other._relay.3.police.arrest", false},
		{relay, "ns_in_relay", contract.MarkSubject("ns", "in"), false},
		{source, "ns_src", relayed + "3.police.arrest", false},
		{source, "ns_src", "evt.ns.in.src.3.custody.arrest", true},
	} {
		nc, err := nats.Connect(s.URL(), nats.UserCredentials(c.creds), nats.CustomInboxPrefix("_INBOX."+c.inbox), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		before := len(s.Messages("ns_in")) + len(s.Messages("ns_other"))
		answer, err := nc.Request(c.subject, []byte("{}"), time.Second)
		stored := len(s.Messages("ns_in")) + len(s.Messages("ns_other")) - before
		nc.Close()
		if allowed := err == nil && !strings.Contains(string(answer.Data), "error"); allowed != c.allowed || (stored > 0) != c.allowed {
			t.Errorf("%s publishes %s: allowed %v, stored %d, want %v", c.inbox, c.subject, allowed, stored, c.allowed)
		}
	}
}

func TestCircleOfRoutesEnds(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	there := eventRoute(t, s, "there", "a", 10*time.Second, "src.>", "_relay.b")
	back := eventRoute(t, s, "back", "b", 10*time.Second, "_relay.a")
	startPod(t, relayPod(s, there, back))
	s.Publish("ns", "in", "src", "custody.arrest", "m1", []byte(`{}`))
	within(t, 20*time.Second, "a dead letter", func() bool { return len(s.Messages("ns_in_dead")) == 1 })
	within(t, 10*time.Second, "all settled", func() bool { return settledAll(t, s, there.Durable) && settledAll(t, s, back.Durable) })
	if made := len(events(s, "a")) + len(events(s, "b")); made != contract.MaxHops {
		t.Errorf("%d events were made, want %d", made, contract.MaxHops)
	}
	dead := s.Messages("ns_in_dead")
	if h := dead[0].Header; len(dead) != 1 || h.Get(contract.HeaderDeadReason) != contract.DeadReasonHopLimit || h.Get(contract.HeaderHops) != "16" {
		t.Errorf("%d dead letters, the first with %q", len(dead), h)
	}
}

// While the stream is full the relay's messages wait where they are, for longer than their attempts would last.
func TestRelayWaitsForAFullStream(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsync %v", fsync), func(t *testing.T) {
			s := enginetest.Start(t, enginetest.Options{Fsync: fsync})
			s.Streams("ns", "in", 1<<20)
			r := eventRoute(t, s, "r", "police.arrest", 10*time.Second, "src.>")
			r.Delivery.Attempts = 1 // a single one that is lost shows
			var ids []string
			for i := 0; ; i++ {
				id := fmt.Sprintf("m%d", i)
				_, err := s.Admin().PublishMsg(t.Context(), &nats.Msg{Subject: "evt.ns.in.src.1.custody.arrest", Data: make([]byte, 2000), Header: nats.Header{
					"Nats-Msg-Id": {"uid-src//" + id}, contract.HeaderSpecVersion: {"1.0"}, contract.HeaderID: {id}, contract.HeaderType: {"custody.arrest"},
					contract.HeaderSource: {contract.SourceURI("ns", "src")}, contract.HeaderFormat: {"Binary"},
				}})
				if err != nil {
					break
				}
				ids = append(ids, id)
			}
			p := startPod(t, relayPod(s, r))
			report(t, s, "in_relay", "pod-1", "that the bus is full", 20*time.Second, func(r contract.Report) bool {
				return len(r.Routes) == 1 && r.Routes[0].Reason == contract.ReasonStreamFull && !r.System.OK
			})
			line := `metip_connector_write_seconds_count{destination="d",route="r"}`
			within(t, 60*time.Second, "more tries than there are attempts", func() bool { return p.metric(line) > float64(2*r.Delivery.Attempts) })
			// Room for some of them, so that what fails meanwhile is seen beside what succeeds; then for all.
			for _, size := range []int64{1<<20 + 1<<17, 8 << 20} {
				c := must(t)(s.Admin().Stream(t.Context(), "ns_in")).CachedInfo().Config
				c.MaxBytes = size
				must(t)(s.Admin().UpdateStream(t.Context(), c))
				within(t, 60*time.Second, "full again, or done", func() bool {
					if len(events(s, "police.arrest")) == len(ids) {
						return true
					}
					r, ok := s.Report("ns", "in_relay", "pod-1")
					return ok && size < 2<<20 && len(r.Routes) == 1 && len(events(s, "police.arrest")) > 20
				})
			}
			if dead := s.Messages("ns_in_dead"); len(dead) > 0 {
				t.Errorf("%d dead letters, the first says %q", len(dead), dead[0].Header.Get(contract.HeaderDeadError))
			}
			seen := map[string]int{}
			for _, m := range events(s, "police.arrest") {
				seen[m.Header.Get(contract.HeaderID)]++
			}
			for _, id := range ids {
				if seen[id] != 1 {
					t.Errorf("%s was published %d times", id, seen[id])
				}
			}
		})
	}
}

func must(t testing.TB) func(jetstream.Stream, error) jetstream.Stream {
	return func(s jetstream.Stream, err error) jetstream.Stream {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// proxy stands between a pod and the broker. What goes through it when it is cut is lost, in both directions, as when a process is killed.
type proxy struct {
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
}

func startProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(in, out) }()
			go func() { _, _ = io.Copy(out, in) }()
		}
	}()
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) cut() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// Two hops, while pods are killed in mid-flow: every id arrives at the end, and the bus holds every event once.
func TestRelayIsKilled(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsync %v", fsync), func(t *testing.T) {
			s := enginetest.Start(t, enginetest.Options{Fsync: fsync})
			s.Streams("ns", "in", streamSize)
			first := eventRoute(t, s, "first", "police.arrest", 2*time.Second, "src.>")
			second := eventRoute(t, s, "second", "court.case", 2*time.Second, "_relay.police.arrest")
			options := relayPod(s, first, second)
			var ids []string
			done := make(chan struct{})
			go func() {
				defer close(done)
				for n := range 20 {
					ids = append(ids, publishMany(s, 100*n, 100)...)
				}
			}()
			for kill := range 6 {
				cut := startProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
				o := options
				o.name, o.grace = fmt.Sprintf("pod-%d", kill), 100*time.Millisecond
				config := *options.config
				config.Broker.URLs = []string{cut.url()}
				o.config = &config
				p := startPod(t, o)
				before := len(events(s, "court.case"))
				within(t, 60*time.Second, "some events", func() bool { return len(events(s, "court.case")) > min(before+150, 1900) })
				cut.cut()
				p.stop()
			}
			<-done
			startPod(t, options)
			within(t, 90*time.Second, "all events of the second hop", func() bool { return len(events(s, "court.case")) >= len(ids) })
			within(t, 30*time.Second, "all settled", func() bool { return settledAll(t, s, first.Durable) && settledAll(t, s, second.Durable) })
			for _, eventType := range []string{"police.arrest", "court.case"} {
				seen := map[string]int{}
				for _, m := range events(s, eventType) {
					seen[m.Header.Get(contract.HeaderID)]++
				}
				if len(seen) != len(ids) {
					t.Errorf("%d ids of %s, want %d", len(seen), eventType, len(ids))
				}
				for id, n := range seen {
					if n != 1 {
						t.Errorf("%s %s is there %d times", eventType, id, n)
					}
				}
			}
			if dead := s.Messages("ns_in_dead"); len(dead) > 0 {
				t.Errorf("%d dead letters", len(dead))
			}
		})
	}
}

// What a sink gets of an event is what the relay made of it.
func TestSinkTakesEvents(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	f := newFakeSink()
	got := make(chan sdk.Message, 1)
	f.write = func(d *sdk.Delivery) error {
		if d.Type == "police.arrest" {
			got <- *d.Message
		}
		return nil
	}
	startSink(t, s, f, routeConfig("r", "d"))
	startPod(t, relayPod(s, eventRoute(t, s, "e", "police.arrest", 10*time.Second, "src.>")))
	s.Publish("ns", "in", "src", "custody.arrest", "m1", []byte(`{}`))
	select {
	case m := <-got:
		if m.ID != "m1" || m.Hops != 1 || m.Accepted == "" || m.Source != "/metip/ns/in/_relay/e/d?from=/metip/ns/src" {
			t.Errorf("%+v", m)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	if dead := s.Messages("ns_in_dead"); len(dead) > 0 {
		t.Errorf("a dead letter: %q", dead[0].Header.Get(contract.HeaderDeadError))
	}
}
