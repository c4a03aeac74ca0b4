package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

const (
	natsStream  = "CASES"
	natsSubject = "cases.new"
)

// streamServer is a NATS server of somebody else's, a process of its own, with a stream.
type streamServer struct {
	dir      string
	port     int
	ca       *certs.Authority
	password string
	process  *enginetest.Process
}

func newStreamServer(t *testing.T) *streamServer {
	t.Helper()
	s := &streamServer{dir: t.TempDir(), ca: mustCA(t), password: "first-password"}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	cert, key, err := s.ca.Issue(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"ca.crt": s.ca.PEM, "tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start(t)
	s.declare(t)
	return s
}

// start the server, again after a kill: at the same address, with what it had.
func (s *streamServer) start(t *testing.T) {
	t.Helper()
	conf := fmt.Sprintf(`
listen: 127.0.0.1:%d
max_payload: 16777216
tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 5 }
jetstream { store_dir: %q, sync_interval: always }
accounts: {
  COURT: { jetstream: enabled, users: [
    {user: owner, password: in-process}
    {user: bus, password: %q, permissions: {publish: [">"], subscribe: ["_INBOX.>"]}}
  ] }
}
`, s.port, filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key"), filepath.Join(s.dir, "ca.crt"), filepath.Join(s.dir, "store"), s.password)
	file := filepath.Join(s.dir, "nats.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.process = enginetest.RunServer(t, "nats of the court", file)
	fakes.Eventually(t, pullWithin, "the server answers", func() bool {
		return s.use(t, func(ctx context.Context, js jetstream.JetStream) error { _, err := js.AccountInfo(ctx); return err }) == nil
	})
}

func (s *streamServer) endpoint() string { return fmt.Sprintf("tls://127.0.0.1:%d", s.port) }

// use the server as its owner.
func (s *streamServer) use(t *testing.T, f func(context.Context, jetstream.JetStream) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pair := clientCertificate(t, s.ca)
	cert, key := filepath.Join(s.dir, "owner.crt"), filepath.Join(s.dir, "owner.key")
	for file, text := range map[string]string{cert: pair[contract.FileTLSCert], key: pair[contract.FileTLSKey]} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	nc, err := nats.Connect(s.endpoint(), nats.UserInfo("owner", "in-process"), nats.RootCAs(filepath.Join(s.dir, "ca.crt")), nats.ClientCert(cert, key), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return f(ctx, js)
}

func (s *streamServer) must(t *testing.T, f func(context.Context, jetstream.JetStream) error) {
	t.Helper()
	if err := s.use(t, f); err != nil {
		t.Fatal(err)
	}
}

func (s *streamServer) declare(t *testing.T) {
	t.Helper()
	s.must(t, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: natsStream, Subjects: []string{"cases.>"}, Storage: jetstream.FileStorage, Duplicates: 2 * time.Minute})
		return err
	})
}

func (s *streamServer) remove(t *testing.T) {
	t.Helper()
	s.must(t, func(ctx context.Context, js jetstream.JetStream) error { return js.DeleteStream(ctx, natsStream) })
}

func (s *streamServer) rotate(t *testing.T) map[string]string {
	t.Helper()
	s.password = "second-password"
	s.process.Kill()
	s.start(t)
	return map[string]string{"password": s.password}
}

func (s *streamServer) config() contract.Config {
	return contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, Certificate: true, CAFrom: "secret court-ca key ca.crt"}}
}

func (s *streamServer) secrets(t *testing.T) map[string]string {
	t.Helper()
	return merged(clientCertificate(t, s.ca), map[string]string{"username": "bus", "password": s.password, "ca.crt": s.ca.PEM})
}

func (s *streamServer) put(t *testing.T, from, to, size int, header nats.Header) {
	t.Helper()
	filler := strings.Repeat("x", size)
	s.must(t, func(ctx context.Context, js jetstream.JetStream) error {
		var futures []jetstream.PubAckFuture
		for i := from; i < to; i++ {
			f, err := js.PublishMsgAsync(&nats.Msg{Subject: natsSubject, Header: header, Data: fmt.Appendf(nil, `{"id":%d,"v":%q}`, i, filler)})
			if err != nil {
				return err
			}
			futures = append(futures, f)
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
}

func newNATSSource(t *testing.T) *PullHarness {
	t.Helper()
	s := newStreamServer(t)
	return &PullHarness{
		System: "nats",
		Options: fakes.JSON(t, map[string]any{
			"servers": []string{s.endpoint()}, "stream": natsStream, "consumer": "bus", "subjects": []string{natsSubject}, "maxPending": 100,
		}),
		Config: s.config(), Secrets: s.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
		WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint:         s.endpoint(), Object: natsStream,
		Put: func(t *testing.T, from, to, size int) { t.Helper(); s.put(t, from, to, size, nil) },
		Left: func(t *testing.T) (n int) {
			t.Helper()
			s.must(t, func(ctx context.Context, js jetstream.JetStream) error {
				c, err := js.Consumer(ctx, natsStream, "bus")
				if err == nil {
					n = int(c.CachedInfo().NumPending) + c.CachedInfo().NumAckPending
				}
				return err
			})
			return n
		},
		Window: 100, Shared: true, Forgetful: true,
		Largest: contract.MaxMessageSize - 1024,
		Stop:    func(*testing.T) { s.process.Kill() }, Start: s.start, Remove: s.remove, Restore: s.declare, Rotate: s.rotate,
		Traced: func(t *testing.T, i int, traceparent string) {
			t.Helper()
			s.put(t, i, i+1, 10, nats.Header{"traceparent": {traceparent}})
		},
		Mapped: func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
			t.Helper()
			s.put(t, i, i+1, 10, nats.Header{"Unit-ID": {"7", "8"}, "Content-Type": {"application/vnd.arrest+json"}, "tracestate": {"a=b"}, "Nats-Msg-Id": {"m-1"}})
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				sequence, stored, _ := strings.Cut(m.ID, "/")
				nanos, err := strconv.ParseInt(stored, 10, 64)
				if _, bad := strconv.ParseUint(sequence, 10, 64); bad != nil || err != nil || !time.Unix(0, nanos).Equal(m.Time) || m.ContentType != "application/vnd.arrest+json" {
					t.Errorf("%+v", m)
				}
				if diff := cmp.Diff(map[string]string{"unitid": "7", "natssubject": natsSubject}, m.Headers); diff != "" {
					t.Errorf("headers (-want +got):\n%s", diff)
				}
			}
		},
	}
}

func TestNATSSource(t *testing.T) { PullSources(t, newNATSSource) }

// stored messages of the stream, in its order.
func (s *streamServer) stored(t *testing.T) (out []*jetstream.RawStreamMsg) {
	t.Helper()
	s.must(t, func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, natsStream)
		if err != nil {
			return err
		}
		state := stream.CachedInfo().State
		for sequence := state.FirstSeq; sequence <= state.LastSeq && state.Msgs > 0; sequence++ {
			m, err := stream.GetMsg(ctx, sequence)
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	return out
}

func newNATSSink(t *testing.T) *SinkHarness {
	t.Helper()
	s := newStreamServer(t)
	return &SinkHarness{
		System: "nats",
		Options: fakes.JSON(t, map[string]any{
			"servers": []string{s.endpoint()}, "publish": map[string]any{"subject": "cases.{data.id}", "headers": map[string]any{"Unit": "{data.id}"}},
		}),
		Config: s.config(), Secrets: s.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, CheckKnowsCredentials: true,
		WrongCA: map[string]string{"ca.crt": mustCA(t).PEM}, WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint: s.endpoint(),
		Good:     message,
		Poison:   func(i int) *sdk.Delivery { return fakes.Delivery(strconv.Itoa(i), `{"id":"a.b"}`) },
		Stop:     func(*testing.T) { s.process.Kill() }, Start: s.start, Rotate: s.rotate,
		Slow:   func(*testing.T) func() { s.process.Freeze(); return s.process.Thaw },
		Remove: s.remove, Restore: s.declare,
		Effects: func(t *testing.T) map[int]int {
			t.Helper()
			effects := map[int]int{}
			for _, m := range s.stored(t) {
				var body struct{ ID int }
				if err := json.Unmarshal(m.Data, &body); err != nil {
					t.Fatal(err)
				}
				effects[body.ID]++
			}
			return effects
		},
		Mapped: func(t *testing.T) (*sdk.Delivery, func(t *testing.T)) {
			t.Helper()
			d := message(1, 10)
			d.Subject, d.PartitionKey = "person/17", "p:17"
			d.Headers = map[string]string{contract.HeaderTraceParent: traceParent, "station": "Bow Street"}
			return d, func(t *testing.T) {
				t.Helper()
				seen := s.stored(t)
				if len(seen) != 1 || seen[0].Subject != "cases.1" {
					t.Fatalf("%d messages, %+v", len(seen), seen)
				}
				for name, want := range map[string]string{
					"ce-specversion": "1.0", "ce-id": d.ID, "ce-source": d.Source, "ce-type": d.Type, "ce-subject": "person/17", "ce-partitionkey": "p:17", "ce-station": "Bow Street",
					"ce-time": d.Time.UTC().Format(time.RFC3339Nano), "traceparent": traceParent, "Unit": "1", "Content-Type": "application/json",
					"ce-datacontenttype": "application/json", "Nats-Msg-Id": d.Durable + "/" + d.MessageID,
				} {
					if got := seen[0].Header[name]; len(got) != 1 || got[0] != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			}
		},
	}
}

func TestNATSSink(t *testing.T) { Sinks(t, newNATSSink) }
