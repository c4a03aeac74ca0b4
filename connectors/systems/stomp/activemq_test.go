package stomp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/activemqtest"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// The behaviour suite speaks to RabbitMQ. What only ActiveMQ has, and JMS programs see, is tried here.
var activeMQ struct {
	once   sync.Once
	server *activemqtest.Server
	err    error
	queues atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if activeMQ.server != nil {
		activeMQ.server.Close()
	}
	os.Exit(code)
}

const within = 60 * time.Second

func broker(t *testing.T) (*activemqtest.Server, string) {
	t.Helper()
	activeMQ.once.Do(func() { activeMQ.server, activeMQ.err = activemqtest.Start() })
	if activeMQ.err != nil {
		t.Fatal(activeMQ.err)
	}
	if !activeMQ.server.Running() {
		if err := activeMQ.server.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	return activeMQ.server, fmt.Sprintf("/queue/test.%d", activeMQ.queues.Add(1))
}

func connectionTo(s *activemqtest.Server) map[string]any {
	return map[string]any{"servers": []string{"stomp://" + s.Address()}}
}

func runtime(t *testing.T, password string) (sdk.Runtime, *contract.Config) {
	t.Helper()
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{contract.FileUsername: activemqtest.User, contract.FilePassword: password})
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "test.event"}}
	return fakes.Runtime(t, config, secrets, nil), config
}

// running is a source that runs.
type running struct {
	bus   *fakes.Publisher
	state *fakes.Reporter
	stop  func()
}

func run(t *testing.T, bus *fakes.Publisher, password string, options map[string]any) *running {
	t.Helper()
	rt, _ := runtime(t, password)
	s, err := NewSource(rt, fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{bus: bus, state: &fakes.Reporter{}}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, bus, r.state) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) stored(t *testing.T, n int) []*sdk.Message {
	t.Helper()
	fakes.Eventually(t, within, fmt.Sprintf("%d messages", n), func() bool { return len(r.bus.Stored()) >= n })
	return r.bus.Stored()
}

// send messages from..to-1 to a destination, as the sink does.
func send(t *testing.T, s *activemqtest.Server, options map[string]any, from, to int) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return sending(t, s, options)(ctx, from, to)
}

// sending is a sink until the end of the test.
func sending(t *testing.T, s *activemqtest.Server, options map[string]any) func(ctx context.Context, from, to int) []error {
	t.Helper()
	rt, _ := runtime(t, activemqtest.Password)
	made, err := NewSink(rt, fakes.JSON(t, map[string]any{"connection": connectionTo(s), "send": options}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	op, err := made.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, from, to int) []error {
		batch := make([]*sdk.Delivery, 0, to-from)
		for i := from; i < to; i++ {
			batch = append(batch, fakes.Delivery(fmt.Sprint(i), fmt.Sprintf(`{"id":%d,"kind":"k%d"}`, i, i%2)))
		}
		return op.Write(ctx, batch)
	}
}

// consume a destination with nothing of the source's: the frames as the server sends them. They are not acknowledged.
func consume(t *testing.T, s *activemqtest.Server, destination string, n int) []*frame {
	t.Helper()
	rt, _ := runtime(t, activemqtest.Password)
	var o connectionOptions
	if err := json.Unmarshal(fakes.JSON(t, connectionTo(s)), &o); err != nil {
		t.Fatal(err)
	}
	d, err := newDialer(rt, &o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := dial(t.Context(), d, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.write(newFrame(cmdSubscribe, hdrID, "1", hdrDestination, destination, hdrAck, "client-individual")); err != nil {
		t.Fatal(err)
	}
	var all []*frame
	for len(all) < n {
		f, err := l.read()
		if err != nil {
			t.Fatal(err)
		}
		if f.command == cmdMessage {
			all = append(all, f)
		}
	}
	return all
}

func TestActiveMQ(t *testing.T) {
	s, queue := broker(t)
	for i, err := range send(t, s, map[string]any{"destination": queue, "headers": map[string]any{"kind": "{data.kind}"}, "priority": 7}, 0, 100) {
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	for _, f := range consume(t, s, queue, 3) {
		// A TextMessage has no content-length here, and a BytesMessage has.
		if f.get(hdrContentLength) != "" || f.get("persistent") != "true" || f.get("priority") != "7" || f.get("ce_type") == "" || !strings.HasPrefix(f.get(hdrMessageID), "ID:") {
			t.Errorf("%+v", f.headers)
		}
	}
	r := run(t, &fakes.Publisher{}, activemqtest.Password, map[string]any{"connection": connectionTo(s), "destination": queue})
	seen := map[string]bool{}
	for _, m := range r.stored(t, 100) {
		seen[string(m.Data)] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d of 100 messages", len(seen))
	}
	r.stop()
}

func TestActiveMQBytes(t *testing.T) {
	s, queue := broker(t)
	if err := send(t, s, map[string]any{"destination": queue, "body": "Bytes"}, 0, 1)[0]; err != nil {
		t.Fatal(err)
	}
	if f := consume(t, s, queue, 1)[0]; f.get(hdrContentLength) == "" || string(f.body) != `{"id":0,"kind":"k0"}` {
		t.Errorf("%+v %s", f.headers, f.body)
	}
}

// A selector leaves the others in the queue.
func TestActiveMQSelector(t *testing.T) {
	s, queue := broker(t)
	send(t, s, map[string]any{"destination": queue, "headers": map[string]any{"kind": "{data.kind}"}}, 0, 10)
	r := run(t, &fakes.Publisher{}, activemqtest.Password, map[string]any{"connection": connectionTo(s), "destination": queue, "selector": "kind = 'k1' AND ce_type IS NOT NULL"})
	for _, m := range r.stored(t, 5) {
		if !strings.Contains(string(m.Data), `"k1"`) {
			t.Errorf("%s", m.Data)
		}
	}
	r.stop()
	if left := consume(t, s, queue, 5); len(left) != 5 {
		t.Errorf("%d are left", len(left))
	}
}

// What was not acknowledged comes again after a crash of the broker, under the same JMSMessageID.
func TestActiveMQCrash(t *testing.T) {
	s, queue := broker(t)
	send(t, s, map[string]any{"destination": queue}, 0, 50)
	before := map[string]string{}
	for _, f := range consume(t, s, queue, 50) {
		before[string(f.body)] = f.get(hdrMessageID)
	}
	bus := &fakes.Publisher{}
	bus.Lose(errors.New("the broker breaks off"))
	r := run(t, bus, activemqtest.Password, map[string]any{"connection": connectionTo(s), "destination": queue})
	fakes.Eventually(t, within, "messages are being published", func() bool { return bus.Repeats() > 0 })
	s.Kill()
	fakes.Eventually(t, within, "the status complains", func() bool { err, _ := r.state.State(); return err != nil })
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	after := map[string]string{}
	for _, f := range consume(t, s, queue, 1) {
		after[string(f.body)] = f.get(hdrMessageID)
	}
	bus.Lose(nil)
	r.stored(t, 50)
	r.stop()
	for body, id := range after {
		if before[body] != id {
			t.Errorf("%s was %s, and is %s after the crash", body, before[body], id)
		}
	}
	if n := len(bus.Stored()); n != 50 {
		t.Errorf("%d messages are stored, of 50", n)
	}
}

// What was confirmed is there after a crash, whatever batch it came in.
func TestActiveMQCrashWhileSending(t *testing.T) {
	s, queue := broker(t)
	write := sending(t, s, map[string]any{"destination": queue})
	const size = 20
	confirmed := map[string]bool{}
	fakes.Eventually(t, within, "a batch is interrupted", func() bool {
		from := len(confirmed)
		if from == 5*size {
			go s.Kill()
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		for i, err := range write(ctx, from, from+size) {
			if err != nil {
				return true
			}
			confirmed[fmt.Sprintf(`{"id":%d,"kind":"k%d"}`, from+i, i%2)] = true
		}
		return false
	})
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if len(confirmed) < 5*size {
		t.Fatalf("%d messages were confirmed before the crash", len(confirmed))
	}
	for _, f := range consume(t, s, queue, len(confirmed)) {
		delete(confirmed, string(f.body))
	}
	for body := range confirmed {
		t.Errorf("%s was confirmed, and is lost", body)
	}
}

// One message of a batch that the broker refuses: those before it are sent, and it ends the connection for those behind it.
func TestActiveMQRefusesOneOfABatch(t *testing.T) {
	s, queue := broker(t)
	name := strings.TrimPrefix(queue, "/queue/test.")
	const refused = 3
	results := send(t, s, map[string]any{"destination": fmt.Sprintf("/queue/{data.id == %d ? 'secret.a' : 'test.%s'}", refused, name)}, 0, 6)
	for i, err := range results {
		var unavailable *sdk.UnavailableError
		if i < refused && err != nil || i >= refused && (!errors.As(err, &unavailable) || unavailable.Reason != contract.ReasonAuthenticationFailed) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	there := map[string]bool{}
	for _, f := range consume(t, s, queue, refused) {
		there[string(f.body)] = true
	}
	for i := range refused {
		if body := fmt.Sprintf(`{"id":%d,"kind":"k%d"}`, i, i%2); !there[body] {
			t.Errorf("%s was confirmed, and is not there", body)
		}
	}
}

func TestActiveMQRefuses(t *testing.T) {
	s, queue := broker(t)
	wrong := run(t, &fakes.Publisher{}, "wrong-password", map[string]any{"connection": connectionTo(s), "destination": queue})
	secret := run(t, &fakes.Publisher{}, activemqtest.Password, map[string]any{"connection": connectionTo(s), "destination": "/queue/secret.a"})
	for name, r := range map[string]*running{"a wrong password": wrong, "a queue that is not ours": secret} {
		var unavailable *sdk.UnavailableError
		fakes.Eventually(t, within, name+" is reported", func() bool { err, _ := r.state.State(); return errors.As(err, &unavailable) })
		if unavailable.Reason != contract.ReasonAuthenticationFailed || strings.Contains(unavailable.Error(), "wrong-password") || !strings.Contains(unavailable.Error(), s.Address()) {
			t.Errorf("%s: %s %v", name, unavailable.Reason, unavailable)
		}
	}
	err := send(t, s, map[string]any{"destination": "/queue/secret.a"}, 0, 1)[0]
	var unavailable *sdk.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Reason != contract.ReasonAuthenticationFailed {
		t.Errorf("sending there: %v", err)
	}
}

// A message that the bus can never take goes to the dead letters that are named, with the reason.
func TestActiveMQDeadLetter(t *testing.T) {
	s, queue := broker(t)
	rt, _ := runtime(t, activemqtest.Password)
	var o connectionOptions
	if err := json.Unmarshal(fakes.JSON(t, connectionTo(s)), &o); err != nil {
		t.Fatal(err)
	}
	d, err := newDialer(rt, &o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := dial(t.Context(), d, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	bad := newFrame(cmdSend, hdrDestination, queue, "persistent", "true", hdrReceipt, "1", "unit", "7")
	bad.body = []byte("no JSON")
	if err := l.confirm(bad, "1"); err != nil {
		t.Fatal(err)
	}
	send(t, s, map[string]any{"destination": queue}, 0, 1)
	r := run(t, &fakes.Publisher{}, activemqtest.Password, map[string]any{"connection": connectionTo(s), "destination": queue, "deadLetter": queue + ".refused"})
	r.stored(t, 1)
	f := consume(t, s, queue+".refused", 1)[0]
	if string(f.body) != "no JSON" || f.get("unit") != "7" || !strings.Contains(f.get("metip-error"), "not JSON") || f.get("metip-destination") != queue {
		t.Errorf("%+v %s", f.headers, f.body)
	}
}
