package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// remembering is a source that hands its position and publisher to the test.
type remembering struct {
	position sdk.Position
	bus      chan sdk.Publisher
}

func (r *remembering) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	state.System(nil)
	r.bus <- bus
	<-ctx.Done()
	return nil
}

// startRemembering runs a pod of the source, and returns its position.
func startRemembering(t *testing.T, s *enginetest.Server, pod string) (sdk.Position, sdk.Publisher) {
	t.Helper()
	c := sourceConfig(s)
	c.Source.Position = true
	r := &remembering{bus: make(chan sdk.Publisher, 1)}
	startPod(t, podOptions{
		name: pod, config: c, creds: s.CredsFile("src", contract.SourcePermissions("ns", "in", "src").WithPosition("ns", "in", c.Connector.UID), time.Hour),
		system: sdk.System{Name: "test", Source: func(rt sdk.Runtime, _ json.RawMessage) (sdk.Source, error) {
			r.position = rt.Position
			return r, nil
		}},
	})
	select {
	case bus := <-r.bus:
		return r.position, bus
	case <-time.After(20 * time.Second):
		t.Fatal("the source does not run")
		return nil, nil
	}
}

func wantPosition(t *testing.T, p sdk.Position, want string) {
	t.Helper()
	if got, err := p.Load(t.Context()); err != nil || string(got) != want {
		t.Fatalf("the position is %q, want %q: %v", got, want, err)
	}
}

// A position goes from pod to pod; of two that run at the same time, the one that is behind learns of it and undoes nothing.
func TestPositionGoesFromPodToPod(t *testing.T) {
	t.Parallel()
	s := startStateBroker(t, 64<<20)
	first, _ := startRemembering(t, s, "pod-1")
	wantPosition(t, first, "")
	for n := range 5 {
		if err := first.Store(t.Context(), fmt.Appendf(nil, "%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	second, _ := startRemembering(t, s, "pod-2")
	wantPosition(t, second, "4")
	if err := second.Store(t.Context(), []byte("5")); err != nil {
		t.Fatal(err)
	}
	if err := first.Store(t.Context(), []byte("4b")); !errors.Is(err, sdk.ErrMoved) {
		t.Errorf("the pod that is behind: %v", err)
	}
	wantPosition(t, first, "5")
	if err := first.Store(t.Context(), []byte("6")); err != nil {
		t.Error(err)
	}
	// The confirmation of the last one was lost: it is stored, and nobody else's.
	first.(*sourcePosition).sequence--
	if err := first.Store(t.Context(), []byte("6")); err != nil {
		t.Error("what is there already:", err)
	}
	if err := first.Store(t.Context(), []byte("7")); err != nil {
		t.Error(err)
	}
	// A source that has never loaded it takes no other's place.
	third, _ := startRemembering(t, s, "pod-3")
	if err := third.Store(t.Context(), []byte("x")); !errors.Is(err, sdk.ErrMoved) {
		t.Error(err)
	}
	if err := first.Store(t.Context(), make([]byte, contract.MaxPosition+1)); err == nil {
		t.Error("it took a document that is too large")
	}
	wantPosition(t, second, "7")
}

// What was stored is there after the broker was killed.
func TestPositionSurvivesTheBroker(t *testing.T) {
	t.Parallel()
	s := enginetest.Start(t, enginetest.Options{Fsync: true})
	s.Streams("ns", "in", 64<<20)
	makeState(t, s, 64<<20)
	p, _ := startRemembering(t, s, "pod-1")
	if err := p.Store(t.Context(), []byte(`{"after":[1]}`)); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := p.Store(t.Context(), []byte(`{"after":[2]}`)); err == nil {
		t.Fatal("a broker that is away has taken it")
	}
	s.Boot()
	within(t, 60*time.Second, "the position is stored again", func() bool { return p.Store(t.Context(), []byte(`{"after":[2]}`)) == nil })
	wantPosition(t, p, `{"after":[2]}`)
}

// A position that has no place is an error that says what to do, and comes right by itself.
func TestPositionWithoutRoom(t *testing.T) {
	t.Parallel()
	s := startBroker(t)
	p, _ := startRemembering(t, s, "pod-1")
	want := func(err error, reason, text string) {
		t.Helper()
		var u *sdk.UnavailableError
		if !errors.As(err, &u) || u.Reason != reason || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %s: %s", err, reason, text)
		}
	}
	_, err := p.Load(t.Context())
	want(err, contract.ReasonBrokerUnreachable, "not on the broker yet")
	want(p.Store(t.Context(), []byte("1")), contract.ReasonBrokerUnreachable, "not on the broker yet")
	makeState(t, s, 2000)
	if err := p.Store(t.Context(), []byte("1")); err != nil {
		t.Fatal(err)
	}
	want(p.Store(t.Context(), make([]byte, 3000)), contract.ReasonStreamFull, "raise spec.retention.stateSize")
	wantPosition(t, p, "1")
	makeState(t, s, 20000)
	if err := p.Store(t.Context(), make([]byte, 3000)); err != nil {
		t.Error(err)
	}
}

// A source that keeps a position may write and read that one document, and nothing else of the state; one that keeps none may do neither.
func TestPositionIsTheSourcesOwn(t *testing.T) {
	t.Parallel()
	s := startStateBroker(t, 64<<20)
	own := contract.PositionSubject("ns", "in", "uid-src")
	with := connect(t, s, "ns_src", contract.SourcePermissions("ns", "in", "src").WithPosition("ns", "in", "uid-src"))
	without := connect(t, s, "ns_plain", contract.SourcePermissions("ns", "in", "plain"))
	others := []string{
		contract.PositionSubject("ns", "in", "uid-other"), contract.PositionSubject("ns", "other", "uid-src"),
		contract.StatePrefix("ns", "in", "uid-route", "d") + "deduplicate.x", own + ".x",
	}
	ask := func(nc *nats.Conn, m *nats.Msg) error {
		answer, err := nc.RequestMsg(m, time.Second)
		if err == nil && strings.Contains(string(answer.Data), `"error"`) {
			err = errors.New(string(answer.Data))
		}
		return err
	}
	if err := ask(with, &nats.Msg{Subject: own, Data: []byte("mine")}); err != nil {
		t.Fatal("its own:", err)
	}
	stream := contract.StateStream("ns", "in")
	get := contract.APIPrefix + ".DIRECT.GET." + stream
	if err := ask(with, &nats.Msg{Subject: contract.PositionGet("ns", "in", "uid-src")}); err != nil {
		t.Error("reading its own:", err)
	}
	// Neither may a header of its own message remove what others have written.
	seed(t, s, others[0], others[2])
	for _, header := range []nats.Header{{"Nats-Rollup": {"all"}}, {"Nats-Rollup": {"sub"}}} {
		if err := ask(with, &nats.Msg{Subject: own, Header: header, Data: []byte("roll")}); err == nil {
			t.Errorf("%v was taken", header)
		}
	}
	for name, nc := range map[string]*nats.Conn{"with": with, "without": without} {
		subjects := others
		if name == "without" {
			subjects = append(subjects, own)
		}
		for _, subject := range subjects {
			if err := ask(nc, &nats.Msg{Subject: subject, Data: []byte("forged")}); err == nil {
				t.Errorf("the source %s a position wrote %s", name, subject)
			}
			if err := ask(nc, &nats.Msg{Subject: get + "." + subject}); err == nil {
				t.Errorf("the source %s a position read %s", name, subject)
			}
		}
		for _, request := range []string{`{"last_by_subj":"` + own + `"}`, `{"seq":1}`} {
			if err := ask(nc, &nats.Msg{Subject: get, Data: []byte(request)}); err == nil {
				t.Errorf("the source %s a position read by %s", name, request)
			}
		}
	}
	for _, m := range s.Messages(stream) {
		if string(m.Data) == "forged" {
			t.Error(m.Subject, "is forged")
		}
	}
	if n := len(s.Messages(stream)); n != 3 {
		t.Errorf("%d documents, want 3", n)
	}
}

// seed documents of others.
func seed(t *testing.T, s *enginetest.Server, subjects ...string) {
	t.Helper()
	for _, subject := range subjects {
		if _, err := s.Admin().Publish(t.Context(), subject, []byte("theirs")); err != nil {
			t.Fatal(err)
		}
	}
}

// makeState makes the stream of the state, or gives it another size.
func makeState(t testing.TB, s *enginetest.Server, size int64) {
	t.Helper()
	_, err := s.Admin().CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{
		Name: contract.StateStream("ns", "in"), Subjects: []string{contract.StateSubjects("ns", "in")}, MaxBytes: size, MaxMsgsPerSubject: 1,
		Discard: jetstream.DiscardNew, AllowDirect: true, AllowMsgTTL: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func startStateBroker(t testing.TB, size int64) *enginetest.Server {
	t.Helper()
	s := startBroker(t)
	makeState(t, s, size)
	return s
}
