package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// bodyOf gives n bytes that are the same for each seed.
func bodyOf(seed string, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(seed))), n)
}

// digestOf reads to the end.
func digestOf(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// streamingSink takes claims.
type streamingSink struct {
	*fakeSink
	// digests of the bodies that were read to their end, by id; errs of the others, by id.
	digests map[string]string
	errs    map[string]error
}

func newStreamingSink() *streamingSink {
	s := &streamingSink{fakeSink: newFakeSink(), digests: map[string]string{}, errs: map[string]error{}}
	s.write = func(d *sdk.Delivery) error {
		digest, _, err := digestOf(bytes.NewReader(d.Data))
		if d.Claim != nil {
			body := d.Claim.Open(context.Background())
			defer func() { _ = body.Close() }()
			var n int64
			if digest, n, err = digestOf(body); err == nil && (n != d.Claim.Size() || len(d.Data) > 0) {
				err = fmt.Errorf("%d bytes of %d, and %d besides", n, d.Claim.Size(), len(d.Data))
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.errs[d.ID] = err
			return err
		}
		s.digests[d.ID] = digest
		return nil
	}
	return s
}

func (s *streamingSink) Operation(json.RawMessage) (sdk.Operation, error) { return s, nil }
func (s *streamingSink) Streams() bool                                    { return true }
func (s *streamingSink) system() sdk.System {
	return sdk.System{Name: "test", Sink: func(sdk.Runtime, json.RawMessage) (sdk.Sink, error) { return s, nil }}
}

func (s *streamingSink) digest(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.digests[id]
}

// claimSource is a source's pod that may check bodies in.
func claimSource(t testing.TB, s *enginetest.Server) (*pod, sdk.LargePublisher, sdk.Publisher) {
	t.Helper()
	f, c := newFakeSource(), sourceConfig(s)
	c.Source.Format = sdk.FormatBinary
	p := startPod(t, podOptions{config: c, system: f.system(), creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src").WithClaims("ns", "in", "src"), time.Hour)})
	bus := <-f.bus
	large, ok := bus.(sdk.LargePublisher)
	if !ok {
		t.Fatal("the engine's publisher takes no large bodies")
	}
	within(t, 20*time.Second, "the pod is connected", func() bool { return bus.Ready() == nil })
	return p, large, bus
}

// claimSink is a pod that delivers what src's messages claim.
func claimSink(t testing.TB, s *enginetest.Server, f interface{ system() sdk.System }, routes ...contract.Route) *pod {
	t.Helper()
	for i := range routes {
		routes[i].Sources = []string{"src"}
	}
	o := sinkPod(t, s, newFakeSink(), 10*time.Second, routes...)
	o.system = f.system()
	return startPod(t, o)
}

func large(id string) *sdk.Message { return &sdk.Message{ID: id, ContentType: "video/mp4"} }

// chunks that are stored.
func chunks(t testing.TB, s *enginetest.Server) []*jetstream.RawStreamMsg {
	t.Helper()
	return s.Messages(contract.ClaimStream("ns", "in"))
}

func TestLargeBodiesAreCheckedInAndOut(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", servers), func(t *testing.T) {
			s := enginetest.StartCluster(t, enginetest.Options{Servers: servers, Fsync: true}).Server
			s.Streams("ns", "in", streamSize)
			s.Claims("ns", "in", 256<<20)
			source, bus, _ := claimSource(t, s)
			f := newStreamingSink()
			r := routeConfig("r", "d")
			r.Steps = []contract.Step{{Name: "filter", Filter: `type == "custody.arrest" || data.n == 1`}}
			sink := claimSink(t, s, f, r)
			sizes := []int64{1, contract.ClaimChunk, contract.ClaimChunk + 1, 4 * contract.ClaimChunk, 9<<20 + 17}
			for _, n := range sizes {
				id := strconv.FormatInt(n, 10)
				if err := bus.PublishLarge(t.Context(), large(id), bodyOf(id, n)); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range sizes {
				id := strconv.FormatInt(n, 10)
				want, _, _ := digestOf(bodyOf(id, n))
				within(t, 30*time.Second, "a body of "+id+" bytes is delivered", func() bool { return f.digest(id) == want })
			}
			bytes := int64(0)
			for _, n := range sizes {
				bytes += n
			}
			for line, p := range map[string]*pod{"metip_connector_claims_written": source, "metip_connector_claims_read": sink} {
				labels := ""
				if p == sink {
					labels = `{destination="d",route="r"}`
				}
				if n, b := p.metric(line+"_total"+labels), p.metric(line+"_bytes_total"+labels); n != float64(len(sizes)) || b != float64(bytes) {
					t.Errorf("%s: %v claims of %v bytes, want %d of %d", line, n, b, len(sizes), bytes)
				}
			}
			for _, m := range s.Messages("ns_in") {
				if len(m.Data) > 100 {
					t.Errorf("%s has %d bytes", m.Subject, len(m.Data))
				}
			}
			if n := len(s.Messages(contract.DeadStream("ns", "in"))); n > 0 {
				t.Errorf("%d dead letters", n)
			}
		})
	}
}

// TestClaimsThatCannotBeDelivered: each goes to the dead letters, with the reason, and with the claim check.
func TestClaimsThatCannotBeDelivered(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Claims("ns", "in", 256<<20)
	_, bus, _ := claimSource(t, s)
	step := func(s contract.Step) func(*contract.Route) {
		s.Name = "steps[0]"
		return func(r *contract.Route) { r.Steps = []contract.Step{s} }
	}
	mask := "x"
	routes := map[string]func(*contract.Route){
		"filter": step(contract.Step{Filter: "data.n == 1"}), "size": step(contract.Step{Filter: "size(data) > 3"}),
		"jq": step(contract.Step{JQ: "{a: .b}"}), "cel": step(contract.Step{CEL: "{'a': data}"}),
		"headers": step(contract.Step{SetHeaders: map[string]string{"n": "{data.n}"}}), "redact": step(contract.Step{Redact: &contract.Redact{Paths: []string{"/a"}, Mask: &mask}}),
		"xml":   step(contract.Step{Validate: &contract.Validate{WellFormedXML: true}}),
		"whole": func(r *contract.Route) { r.Operation = json.RawMessage(`"whole"`) },
		"split": step(contract.Step{Split: &contract.Split{Items: "data"}}),
	}
	f := &pickySink{newStreamingSink()}
	var list []contract.Route
	for name, change := range routes {
		r := routeConfig(name, "d")
		change(&r)
		list = append(list, r)
	}
	dropped := routeConfig("dropped", "d")
	dropped.Steps = []contract.Step{{Name: "filter", Filter: "false && data.n == 1"}}
	claimSink(t, s, f, append(list, dropped)...)
	if err := bus.PublishLarge(t.Context(), large("a"), bodyOf("a", 2<<20)); err != nil {
		t.Fatal(err)
	}
	dead := func() []*jetstream.RawStreamMsg { return s.Messages(contract.DeadStream("ns", "in")) }
	within(t, 30*time.Second, "every destination has its dead letter", func() bool { return len(dead()) >= len(routes) })
	claim := s.Messages("ns_in")[0].Header.Get(contract.HeaderClaim)
	for _, m := range dead() {
		if route := m.Header.Get(contract.HeaderDeadRoute); m.Header.Get(contract.HeaderDeadReason) != contract.DeadReasonTooLarge || m.Header.Get(contract.HeaderClaim) != claim || claim == "" {
			t.Errorf("%s: %v", route, m.Header)
		} else if routes[route] == nil {
			t.Errorf("Route %s has a dead letter", route)
		}
	}
}

// pickySink needs the body whole where the operation says so.
type pickySink struct{ *streamingSink }

func (p *pickySink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) > 0 {
		return p.fakeSink, nil
	}
	return p.streamingSink, nil
}

func (p *pickySink) system() sdk.System {
	return sdk.System{Name: "test", Sink: func(sdk.Runtime, json.RawMessage) (sdk.Sink, error) { return p, nil }}
}

// TestClaimThatWasTamperedWith: what is not what the source accepted is never given out whole, and says why.
func TestClaimThatWasTamperedWith(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	stream := s.Claims("ns", "in", 256<<20)
	_, bus, _ := claimSource(t, s)
	for _, id := range []string{"exchanged", "shorter", "good"} {
		if err := bus.PublishLarge(t.Context(), large(id), bodyOf(id, 3*contract.ClaimChunk+5)); err != nil {
			t.Fatal(err)
		}
	}
	for i, change := range []func([]byte) []byte{
		func(b []byte) []byte { b[7] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-1] },
	} {
		c, err := contract.ParseClaim(s.Messages("ns_in")[i].Header.Get(contract.HeaderClaim))
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetLastMsgForSubject(t.Context(), contract.ClaimChunkSubject("ns", "in", "src", c.ID, 1))
		if err != nil {
			t.Fatal(err)
		}
		other := change(m.Data)
		if _, err := s.Admin().Publish(t.Context(), m.Subject, other); err == nil {
			t.Fatal("a chunk was written twice")
		}
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(m.Subject)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Admin().Publish(t.Context(), m.Subject, other); err != nil {
			t.Fatal(err)
		}
	}
	// A message that names the claim of another Connector finds nothing: what is looked for are its own Connector's.
	header := s.Messages("ns_in")[2].Header
	forged := &nats.Msg{Subject: contract.EventSubject("ns", "in", "other", 0, "custody.arrest"), Header: nats.Header{}}
	for name, values := range header {
		forged.Header[name] = values
	}
	forged.Header.Set(contract.HeaderSource, contract.SourceURI("ns", "other"))
	forged.Header.Set(headerMsgID, "forged")
	forged.Header.Set(contract.HeaderID, "forged")
	if _, err := s.Admin().PublishMsg(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	f := newStreamingSink()
	r := routeConfig("r", "d")
	r.Sources = []string{"src", "other"}
	o := sinkPod(t, s, newFakeSink(), 10*time.Second, r)
	o.system = f.system()
	startPod(t, o)
	within(t, 60*time.Second, "the good one is delivered, and the others are dead letters", func() bool {
		return f.digest("good") != "" && len(s.Messages(contract.DeadStream("ns", "in"))) == 3
	})
	for _, m := range s.Messages(contract.DeadStream("ns", "in")) {
		id, reason, text := m.Header.Get(contract.HeaderID), m.Header.Get(contract.HeaderDeadReason), m.Header.Get(contract.HeaderDeadError)
		want := map[string][2]string{
			"exchanged": {contract.DeadReasonClaimLost, "its digest is another"}, "shorter": {contract.DeadReasonClaimLost, "bytes instead of"},
			"forged": {contract.DeadReasonAttemptsExhausted, "is not there, or not yet"},
		}[id]
		if reason != want[0] || !strings.Contains(text, want[1]) {
			t.Errorf("%s: %s: %s", id, reason, text)
		}
		if f.digest(id) != "" {
			t.Errorf("%s was given out whole", id)
		}
	}
}

// TestMissingChunk: for a while it may only be late, then it is lost.
func TestMissingChunk(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Claims("ns", "in", 64<<20)
	_, bus, _ := claimSource(t, s)
	if err := bus.PublishLarge(t.Context(), large("a"), bodyOf("a", 2<<20)); err != nil {
		t.Fatal(err)
	}
	parsed, err := contract.ParseClaim(s.Messages("ns_in")[0].Header.Get(contract.HeaderClaim))
	if err != nil {
		t.Fatal(err)
	}
	nc := connect(t, s, "ns_snk", contract.SinkPermissions("ns", "snk", []contract.SinkDestination{{Integration: "in", Route: "r", Destination: "d", Sources: []string{"src"}}}))
	open := func(stored time.Time, source string) error {
		c := &claim{Claim: parsed, nc: nc, namespace: "ns", integration: "in", source: source, stored: stored, metrics: newSinkMetrics(registry{prometheus.NewRegistry()}).destination("r", "d")}
		_, _, err := digestOf(c.Open(t.Context()))
		return err
	}
	if err := open(time.Now(), "src"); err != nil {
		t.Fatal(err)
	}
	stream, err := s.Admin().Stream(t.Context(), contract.ClaimStream("ns", "in"))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(contract.ClaimChunkSubject("ns", "in", "src", parsed.ID, 2))); err != nil {
		t.Fatal(err)
	}
	if err := open(time.Now(), "src"); err == nil || sdk.IsPermanent(err) {
		t.Errorf("a chunk that may be late: %v", err)
	}
	if err := open(time.Now().Add(-2*claimSettles), "src"); !sdk.IsPermanent(err) || !errors.Is(err, errClaimLost) {
		t.Errorf("a chunk that is gone: %v", err)
	}
}

// TestFullClaimsPushBack: large bodies are refused, and what was stored of them is given up; other messages go on.
func TestFullClaimsPushBack(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Claims("ns", "in", 3<<20)
	_, bus, small := claimSource(t, s)
	if err := bus.PublishLarge(t.Context(), large("fits"), bodyOf("fits", 1<<20)); err != nil {
		t.Fatal(err)
	}
	err := bus.PublishLarge(t.Context(), large("not"), bodyOf("not", 4<<20))
	if !errors.Is(err, sdk.ErrFull) {
		t.Fatal(err)
	}
	if err := small.Publish(t.Context(), event("small")); err != nil {
		t.Errorf("a small message: %v", err)
	}
	within(t, 10*time.Second, "the claim is given up", func() bool { return voids(t, s) == 1 })
	if n := len(s.Messages("ns_in")); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func voids(t testing.TB, s *enginetest.Server) (n int) {
	t.Helper()
	for _, m := range chunks(t, s) {
		if _, _, void, _ := contract.ParseClaimSubject(m.Subject); void {
			n++
		}
	}
	return n
}

// brokenBody fails after n bytes as a caller's connection does.
type brokenBody struct {
	io.Reader
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}

// TestUploadsThatEndEarly publish nothing. A second upload of one id is a duplicate, and gives up what it has stored.
func TestUploadsThatEndEarly(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Claims("ns", "in", 64<<20)
	p, bus, _ := claimSource(t, s)
	for i, err := range []error{io.ErrUnexpectedEOF, errors.New("reset")} {
		got := bus.PublishLarge(t.Context(), large("a"), &brokenBody{bodyOf("a", 3<<20+9), err})
		if !errors.Is(got, sdk.ErrBody) || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
		within(t, 10*time.Second, "it is given up", func() bool { return voids(t, s) == i+1 })
	}
	if err := bus.PublishLarge(t.Context(), large("a"), bytes.NewReader(nil)); !errors.Is(err, sdk.ErrBody) {
		t.Error(err)
	}
	if err := bus.PublishLarge(t.Context(), &sdk.Message{ID: "a", Type: "foreign"}, bodyOf("a", 1<<20)); !errors.Is(err, sdk.ErrInvalid) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := bus.PublishLarge(ctx, large("a"), bodyOf("a", 1<<20)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(s.Messages("ns_in")); n != 0 {
		t.Errorf("%d messages were published", n)
	}
	for range 2 {
		if err := bus.PublishLarge(t.Context(), large("a"), bodyOf("a", 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, "the duplicate is given up", func() bool { return voids(t, s) == 3 })
	if n := len(s.Messages("ns_in")); n != 1 || p.metric("metip_connector_duplicates_total") != 1 {
		t.Errorf("%d messages, %v duplicates", n, p.metric("metip_connector_duplicates_total"))
	}
}

// slowBody is given out as the test lets it.
type slowBody struct {
	io.Reader
	step chan struct{}
}

func (b *slowBody) Read(p []byte) (int, error) {
	<-b.step
	return b.Reader.Read(p[:min(len(p), 64<<10)])
}

// TestBrokerRestartsDuringAnUpload: the upload goes on.
func TestBrokerRestartsDuringAnUpload(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Claims("ns", "in", 64<<20)
	_, bus, _ := claimSource(t, s)
	f := newStreamingSink()
	claimSink(t, s, f, routeConfig("r", "d"))
	const size = 3 << 20
	body := &slowBody{bodyOf("a", size), make(chan struct{}, 1000)}
	done := make(chan error, 1)
	go func() { done <- bus.PublishLarge(t.Context(), large("a"), body) }()
	for range 20 {
		body.step <- struct{}{}
	}
	within(t, 20*time.Second, "a part is stored", func() bool { return len(chunks(t, s)) > 0 })
	s.Kill()
	for range 20 {
		body.step <- struct{}{}
	}
	s.Boot()
	close(body.step)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want, _, _ := digestOf(bodyOf("a", size))
	within(t, 30*time.Second, "it is delivered", func() bool { return f.digest("a") == want })
}

// TestReadersOfClaimsAreBounded: no more bodies are read at a time than the pod's memory has room for.
func TestReadersOfClaimsAreBounded(t *testing.T) {
	t.Parallel()
	bodies := newShares(4*claimMemory, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	d := &destination{sink: &sinkRunner{bodies: bodies, deliver: ctx}, bodies: bodies.join(func() {})}
	batch := []*held{{}}
	batch[0].message.Claim = &claim{}
	for range 4 {
		if n := d.awaitClaims(batch); n != claimMemory {
			t.Fatal(n)
		}
	}
	fifth := make(chan int64, 1)
	go func() { fifth <- d.awaitClaims(batch) }()
	select {
	case <-fifth:
		t.Fatal("a fifth body is read")
	case <-time.After(100 * time.Millisecond):
	}
	d.bodies.give(claimMemory)
	if n := <-fifth; n != claimMemory {
		t.Fatal(n)
	}
	go func() { fifth <- d.awaitClaims(batch) }()
	cancel()
	if n := <-fifth; n != 0 {
		t.Errorf("a pod that ends was given %d bytes", n)
	}
}

func TestMessagesWithoutAClaimPayNothing(t *testing.T) {
	d, h := &destination{}, &held{in: &nats.Msg{Header: nats.Header{contract.HeaderID: {"a"}}}}
	if n := testing.AllocsPerRun(100, func() {
		if d.setClaim(h) != nil || d.takesClaim(h) != nil || d.awaitClaims([]*held{h}) != 0 {
			t.Fatal("it is taken for a claim")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestClaimOfADeadLetterIsDeliveredByAReplay: the dead letter and the copy that a Replay makes of it carry the claim check.
func TestClaimOfADeadLetterIsDeliveredByAReplay(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	s.Claims("ns", "in", 64<<20)
	_, bus, _ := claimSource(t, s)
	f := newStreamingSink()
	f.mu.Lock()
	write := f.write
	f.write = func(*sdk.Delivery) error { return sdk.Permanentf("not today") }
	f.mu.Unlock()
	claimSink(t, s, f, routeConfig("r", "d"))
	if err := bus.PublishLarge(t.Context(), large("a"), bodyOf("a", 2<<20)); err != nil {
		t.Fatal(err)
	}
	dead := contract.DeadStream("ns", "in")
	within(t, 20*time.Second, "it is a dead letter", func() bool { return len(s.Messages(dead)) == 1 })
	letter := s.Messages(dead)[0]
	if letter.Header.Get(contract.HeaderClaim) == "" || len(letter.Data) > 0 {
		t.Fatalf("%v", letter.Header)
	}
	f.set(nil, write)
	replay(t, s, 1)
	want, _, _ := digestOf(bodyOf("a", 2<<20))
	within(t, 20*time.Second, "it is delivered", func() bool { return f.digest("a") == want })
}
