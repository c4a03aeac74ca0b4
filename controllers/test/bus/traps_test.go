package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// eventually polls until done says nothing, and fails with what it said last.
func eventually(t *testing.T, within time.Duration, done func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		complaint := done()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, complaint)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// flow is an Integration ns/intg with a source and a sink, as the operator makes them.
type flow struct {
	broker  *bustest.Broker
	session bus.Session
	admin   jetstream.JetStream
	source  *nats.Conn
	sink    *nats.Conn
	users   map[string]bus.User
}

func newFlow(t *testing.T, b *bustest.Broker, change func(*bus.Params), s bus.Streams) *flow {
	t.Helper()
	f := &flow{broker: b, users: map[string]bus.User{}}
	f.session, _ = b.Session(change)
	_, f.admin = b.Admin()
	if _, err := f.session.EnsureStreams(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	f.ensureDurable(t, durable("ns", "intg", "route", "db", "src"))
	f.source = f.user(t, "src", contract.SourcePermissions("ns", "intg", "src"))
	f.sink = f.user(t, "snk", contract.SinkPermissions("ns", "snk", []contract.SinkDestination{{Integration: "intg", Route: "route", Destination: "db"}}))
	return f
}

func (f *flow) ensureDurable(t *testing.T, d bus.Durable) {
	t.Helper()
	if _, err := f.session.EnsureDurable(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

// user connects as a connector does. Refusals are errors of the connection, which the test looks at by itself.
func (f *flow) user(t *testing.T, connector string, p contract.Permissions) *nats.Conn {
	t.Helper()
	user, err := f.session.IssueUser(contract.UserName("ns", connector), p, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	f.users[connector] = user
	return f.broker.Connect(user.Creds, nats.CustomInboxPrefix(contract.InboxPrefix("ns", connector)),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

func edgeJetStream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.NewWithAPIPrefix(nc, contract.APIPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func publish(t *testing.T, nc *nats.Conn, subject string, n int) {
	t.Helper()
	js := edgeJetStream(t, nc)
	for i := range n {
		if _, err := js.Publish(t.Context(), subject, []byte(fmt.Sprint(i))); err != nil {
			t.Fatalf("publishing %s: %v", subject, err)
		}
	}
}

// refused says whether a request is not answered, which is how a refusal by permissions looks.
func refused(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := nc.RequestWithContext(ctx, subject, []byte("x"))
	return err != nil
}

func TestConnectorsWorkWithMinimalPermissionsAndNoMore(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("servers=%d", servers), func(t *testing.T) {
			b := bustest.Start(t, bustest.Options{Servers: servers})
			f := newFlow(t, b, nil, streams("ns", "intg"))
			publish(t, f.source, contract.EventSubject("ns", "intg", "src", 3, "arrest"), 10)
			js := edgeJetStream(t, f.sink)
			consumer, err := js.Consumer(t.Context(), "ns_intg", "ns_route_db")
			if err != nil {
				t.Fatalf("consumer info as the sink: %v", err)
			}
			batch, err := consumer.Fetch(10, jetstream.FetchMaxWait(5*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for m := range batch.Messages() {
				if got++; got == 1 {
					dead := contract.DeadSubject("ns", "intg", "route", "db", 1, 0)
					if _, err := js.Publish(t.Context(), dead, m.Data(), jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
						t.Errorf("dead letter: %v", err)
					}
				}
				if err := m.DoubleAck(t.Context()); err != nil {
					t.Errorf("acknowledging: %v", err)
				}
			}
			if got != 10 {
				t.Errorf("%d messages were delivered, want 10", got)
			}
			for who, tries := range map[*nats.Conn][]string{
				f.source: {"evt.ns.intg.other.0.x", "evt.ns.intg2.src.0.x", "dead.ns.intg.route.db.1-0", "mark.ns.intg", "rpl.ns.intg.route.db.0", "bus.API.CONSUMER.INFO.ns_intg.ns_route_db",
					"$JS.API.STREAM.DELETE.ns_intg", "$SYS.REQ.CLAIMS.UPDATE", "status.ns.other.pod"},
				f.sink: {"evt.ns.intg.src.0.x", "rpl.ns.intg.route.db.0", "bus.API.CONSUMER.INFO.ns_intg.other", "bus.API.CONSUMER.CREATE.ns_intg.x", "bus.API.STREAM.INFO.ns_intg",
					"dead.ns.intg.route.other.1-0", "$JS.API.STREAM.PURGE.ns_intg"},
			} {
				for _, subject := range tries {
					if !refused(t, who, subject) {
						t.Errorf("%s was answered", subject)
					}
				}
			}
		})
	}
}

func TestReplySubjectsDoNothingAcrossAccounts(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	victim := durable("ns", "intg", "victim", "db", "src")
	victim.RouteUID = "r-2"
	f.ensureDurable(t, victim)
	publish(t, f.source, contract.EventSubject("ns", "intg", "src", 0, "x"), 5)
	state := func() string {
		stream, err := f.admin.Stream(t.Context(), "ns_intg")
		if err != nil {
			return err.Error()
		}
		info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			return err.Error()
		}
		list, err := f.session.Durables(t.Context(), "ns_intg")
		return fmt.Sprintf("%d %d %v", info.State.FirstSeq, info.State.Consumers, info.State.Subjects) + fmt.Sprint(list, err)
	}
	before := state()
	for _, to := range []string{
		"$JS.API.STREAM.DELETE.ns_intg", "bus.API.STREAM.DELETE.ns_intg", "$JS.API.STREAM.PURGE.ns_intg",
		"$JS.API.CONSUMER.DELETE.ns_intg.ns_victim_db", "bus.API.CONSUMER.DELETE.ns_intg.ns_victim_db",
		"evt.ns.intg.other.0.x", "mark.ns.intg", "$JS.ACK.ns_intg.ns_victim_db.1.1.1.1.0", "dead.ns.intg.victim.db.1-0", "status.ns.other.pod",
	} {
		for _, body := range []string{`{"batch":1,"no_wait":true}`, `{"batch":1,"expires":100000000}`} {
			for _, subject := range []string{"bus.API.CONSUMER.INFO.ns_intg.ns_route_db"} {
				if err := f.sink.PublishRequest(subject, to, nil); err != nil {
					t.Fatal(err)
				}
			}
			// Nothing is left for the sink's own durable, so that the answers are statuses with an empty body.
			if err := f.sink.PublishRequest("bus.API.CONSUMER.MSG.NEXT.ns_intg.ns_route_db", to, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.source.PublishRequest("status.ns.src.pod", to, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, nc := range []*nats.Conn{f.sink, f.source} {
		if err := nc.FlushTimeout(5 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	// The sink's own durable gives its five messages away; everything else stays as it is for a while.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		stream, err := f.admin.Stream(t.Context(), "ns_intg")
		if err != nil {
			t.Fatalf("the stream is gone: %v", err)
		}
		if n := stream.CachedInfo().State; n.Msgs != 5 || n.Consumers != 2 {
			t.Fatalf("before %s, now %s", before, state())
		}
		consumer, err := f.admin.Consumer(t.Context(), "ns_intg", "ns_victim_db")
		if err != nil {
			t.Fatalf("the victim's durable is gone: %v", err)
		}
		if info := consumer.CachedInfo(); info.NumPending != 5 || info.NumAckPending != 0 || info.AckFloor.Stream != 0 {
			t.Fatalf("the victim's durable moved: %+v", info)
		}
	}
	if s, err := f.session.StreamsState(t.Context(), "ns", "intg"); err != nil || s.DeadMessages != 0 {
		t.Fatalf("dead letters: %+v, %v", s, err)
	}
	if got := f.session.Reports("ns", "other"); len(got) != 0 {
		t.Fatalf("a report in another's name: %+v", got)
	}
}

func TestRevokedUserIsOutWithinSeconds(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	f := newFlow(t, b, nil, streams("ns", "intg"))
	user := f.users["src"]
	if err := f.session.Revoke(t.Context(), user.PublicKey); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() string {
		if f.source.IsConnected() {
			return "the revoked user is still connected"
		}
		return ""
	})
	if _, err := b.Dial(user.Creds, nats.MaxReconnects(0)); !errors.Is(err, nats.ErrAuthorization) && !errors.Is(err, nats.ErrAuthRevoked) {
		t.Fatalf("a revoked user connects: %v", err)
	}
	if !f.sink.IsConnected() {
		t.Error("the neighbour was thrown out too")
	}
	if err := f.session.Revoke(t.Context(), user.PublicKey); err != nil {
		t.Errorf("revoking again: %v", err)
	}
}

func TestServerThatWasDownLearnsOfRevocation(t *testing.T) {
	b := bustest.Start(t, bustest.Options{Servers: 3})
	var stored string
	f := newFlow(t, b, func(p *bus.Params) {
		p.Accounts = []string{b.Keys().BusClaims(), b.Keys().EdgeClaims()}
		p.StoreEdgeClaims = func(_ context.Context, encoded string) error { stored = encoded; return nil }
	}, streams("ns", "intg"))
	user := f.users["src"]
	f.source.Close()
	b.Stop(2)
	if err := f.session.Revoke(t.Context(), user.PublicKey); err != nil {
		t.Fatal(err)
	}
	if stored == "" {
		t.Fatal("the claims were not stored")
	}
	b.Restart(2)
	url := b.Client().URLs[2]
	eventually(t, 10*time.Second, func() string {
		nc, err := b.DialURL(url, user.Creds, nats.MaxReconnects(0))
		if err == nil {
			nc.Close()
			return "the server that was down accepts the revoked user"
		}
		return ""
	})
}
