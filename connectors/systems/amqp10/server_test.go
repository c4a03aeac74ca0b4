package amqp10

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/rabbitmqtest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

var shared struct {
	once   sync.Once
	server *rabbitmqtest.Server
	err    error
	count  atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.Close()
	}
	os.Exit(code)
}

const within = 60 * time.Second

// place is a virtual host of a test's own, without TLS: the behaviour suite has that.
type place struct {
	*rabbitmqtest.Server
	name    string
	secrets *fakes.Secrets
	other   *amqp.Session // somebody else's program
}

func newPlace(t testing.TB, queues ...string) *place {
	t.Helper()
	shared.once.Do(func() {
		shared.server, shared.err = rabbitmqtest.Start("rabbitmq_amqp1_0", "rabbitmq_auth_mechanism_ssl")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	p := &place{Server: shared.server, name: fmt.Sprintf("place%d", shared.count.Add(1)), secrets: &fakes.Secrets{}}
	p.Account(t, p.name, "password")
	p.secrets.Set(map[string]string{"username": p.name, "password": "password"})
	for _, queue := range queues {
		p.queue(t, queue, map[string]any{})
	}
	p.other = p.AMQP10(t, p.name)
	return p
}

func (p *place) queue(t testing.TB, name string, arguments map[string]any) {
	t.Helper()
	p.API(t, http.MethodPut, "/api/queues/"+p.name+"/"+name, map[string]any{"durable": true, "arguments": arguments}, nil)
}

func (p *place) connection() map[string]any {
	return map[string]any{"servers": []string{fmt.Sprintf("amqp://%s:%d", p.Host, p.PlainPort)}, "hostname": "vhost:" + p.name}
}

func (p *place) config() *contract.Config {
	return &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "test"}}
}

// put messages into a queue, as somebody else's program does.
func (p *place) put(t testing.TB, queue string, messages ...*amqp.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	sender, err := p.other.NewSender(ctx, "/amq/queue/"+queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := sender.Send(ctx, m, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// take n messages out of a queue, as somebody else's program does.
func (p *place) take(t testing.TB, queue string, n int) []*amqp.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	session := p.AMQP10(t, p.name)
	defer func() { _ = session.Close(ctx) }()
	receiver, err := session.NewReceiver(ctx, "/amq/queue/"+queue, &amqp.ReceiverOptions{Credit: int32(n)})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*amqp.Message, n)
	for i := range all {
		if all[i], err = receiver.Receive(ctx, nil); err != nil {
			t.Fatalf("%d of %d messages of %s: %v", i, n, queue, err)
		}
		if err := receiver.AcceptMessage(ctx, all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// read an address with these options besides, until the end of the test.
func (p *place) read(t testing.TB, bus sdk.Publisher, options map[string]any) (state *fakes.Reporter, stop func()) {
	t.Helper()
	options["connection"] = p.connection()
	return run(t, bus, fakes.Runtime(t, p.config(), p.secrets, nil), options)
}

func run(t testing.TB, bus sdk.Publisher, rt sdk.Runtime, options map[string]any) (state *fakes.Reporter, stop func()) {
	t.Helper()
	s, err := NewSource(rt, fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	state = &fakes.Reporter{}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, bus, state) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return state, stop
}

func (p *place) newSink(t testing.TB, send map[string]any) sdk.Sink {
	t.Helper()
	s, err := NewSink(fakes.Runtime(t, p.config(), p.secrets, nil), fakes.JSON(t, map[string]any{"connection": p.connection(), "send": send}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sink is what writes messages with these options.
func (p *place) sink(t testing.TB, send map[string]any) func(...*sdk.Delivery) []error {
	t.Helper()
	op, err := p.newSink(t, send).Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(batch ...*sdk.Delivery) []error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return op.Write(ctx, batch)
	}
}

// wantDown waits for a state of this reason that names these words.
func wantDown(t *testing.T, state *fakes.Reporter, reason string, words ...string) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("the last state is: %v", last)
		}
	}()
	fakes.Eventually(t, within, "the state is "+reason, func() bool { last, _ = state.State(); return unavailableFor(last, reason, words...) })
}

func unavailableFor(err error, reason string, words ...string) bool {
	var u *sdk.UnavailableError
	if !errors.As(err, &u) || u.Reason != reason {
		return false
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			return false
		}
	}
	return true
}

func wantStored(t *testing.T, bus *fakes.Publisher, n int) []*sdk.Message {
	t.Helper()
	fakes.Eventually(t, within, fmt.Sprintf("%d messages", n), func() bool { return len(bus.Stored()) >= n })
	return bus.Stored()
}

// bad messages, and how each is refused.
func bad() ([]*amqp.Message, []string) {
	subject := "kept"
	return []*amqp.Message{
		{Data: [][]byte{[]byte("no JSON")}, Properties: &amqp.MessageProperties{MessageID: amqp.UUID{1}, Subject: &subject}, ApplicationProperties: map[string]any{"unit": int64(7)}},
		{Value: map[string]any{"a": "b"}}, {Sequence: [][]any{{"a", int64(1)}}}, {Value: int64(5)}, {Value: amqp.Null{}},
	}, []string{"not JSON", "map[string]any", "amqp-sequence", "int64", "not JSON"}
}

func TestMessagesOfEveryKind(t *testing.T) {
	p := newPlace(t, "in", "refused")
	refused, reasons := bad()
	p.put(t, "in", refused...)
	good := []*amqp.Message{
		{Data: [][]byte{[]byte(`1`)}, Properties: &amqp.MessageProperties{MessageID: "text"}},
		{Data: [][]byte{[]byte(`[1,2]`)}, Properties: &amqp.MessageProperties{MessageID: uint64(7)}},
		{Value: `"text"`, Properties: &amqp.MessageProperties{MessageID: amqp.UUID{1}}},
		{Value: []byte(`"binary"`), Properties: &amqp.MessageProperties{MessageID: []byte{1, 2}}},
	}
	p.put(t, "in", good...)
	bus := &fakes.Publisher{}
	state, stop := p.read(t, bus, map[string]any{"address": "/amq/queue/in", "deadLetter": "/amq/queue/refused"})
	var got []string
	for _, m := range wantStored(t, bus, len(good)) {
		got = append(got, m.ID+" "+string(m.Data))
	}
	if want := `text 1|ulong:7 [1,2]|uuid:01000000-0000-0000-0000-000000000000 "text"|binary:0102 "binary"`; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
	for i, m := range p.take(t, "refused", len(refused)) {
		if text, _ := m.ApplicationProperties["metip-error"].(string); !strings.Contains(text, reasons[i]) || m.ApplicationProperties["metip-address"] != "/amq/queue/in" || !m.Header.Durable {
			t.Errorf("%d: %v, want %q", i, m.ApplicationProperties, reasons[i])
		}
		if i == 0 && (string(m.Data[0]) != "no JSON" || m.Properties.MessageID != (amqp.UUID{1}) || *m.Properties.Subject != "kept" || m.ApplicationProperties["unit"] != int64(7)) {
			t.Errorf("it is not the message that it was: %+v", m)
		}
		if i == 1 && fmt.Sprint(m.Value) != "map[a:b]" || i == 2 && fmt.Sprint(m.Sequence) != "[[a 1]]" {
			t.Errorf("it is not the message that it was: %+v", m)
		}
	}
	if err, reported := state.State(); err != nil || !reported {
		t.Error(err)
	}
	stop()
	if n := p.Messages(t, p.name, "in"); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func TestRejectedMessagesGoToTheBrokersDeadLetters(t *testing.T) {
	p := newPlace(t, "dead")
	p.queue(t, "in", map[string]any{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
	refused, _ := bad()
	p.put(t, "in", refused[0], &amqp.Message{Data: [][]byte{[]byte(`1`)}})
	bus := &fakes.Publisher{}
	_, stop := p.read(t, bus, map[string]any{"address": "/amq/queue/in", "reject": true})
	wantStored(t, bus, 1)
	if m := p.take(t, "dead", 1)[0]; string(m.Data[0]) != "no JSON" {
		t.Errorf("%+v", m)
	}
	stop()
	if n := p.Messages(t, p.name, "in"); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func TestSourceStopsAtABadMessage(t *testing.T) {
	p := newPlace(t, "in")
	p.put(t, "in", &amqp.Message{Data: [][]byte{[]byte(`1`)}}, &amqp.Message{Data: [][]byte{[]byte(`x`)}, Properties: &amqp.MessageProperties{MessageID: "bad-1"}}, &amqp.Message{Data: [][]byte{[]byte(`2`)}})
	bus := &fakes.Publisher{}
	state, stop := p.read(t, bus, map[string]any{"address": "/amq/queue/in"})
	wantDown(t, state, contract.ReasonSystemError, "bad-1", "/amq/queue/in", "deadLetter")
	stop()
	if n := len(bus.Stored()); n != 1 {
		t.Errorf("%d messages are on the bus", n)
	}
	left := p.take(t, "in", 2)
	if string(left[0].Data[0]) != "x" || string(left[1].Data[0]) != "2" {
		t.Errorf("%s %s", left[0].Data, left[1].Data)
	}
}

// What is not settled when a pod ends is released, and stands in its queue as before.
func TestDrainReleases(t *testing.T) {
	p := newPlace(t, "in")
	for i := range 20 {
		p.put(t, "in", &amqp.Message{Data: [][]byte{fmt.Append(nil, i)}})
	}
	bus := &fakes.Publisher{}
	bus.Fail(errors.New("the bus is away"))
	_, stop := p.read(t, bus, map[string]any{"address": "/amq/queue/in", "prefetch": 10})
	fakes.Eventually(t, within, "messages are tried", func() bool { return bus.Calls() > 1 })
	stop()
	for i, m := range p.take(t, "in", 20) {
		if string(m.Data[0]) != fmt.Sprint(i) {
			t.Errorf("%s stands where %d was", m.Data, i)
		}
	}
}

func TestWhatTheAccountMayNot(t *testing.T) {
	p := newPlace(t, "in")
	p.API(t, http.MethodPut, "/api/permissions/"+p.name+"/"+p.name, map[string]any{"configure": "^$", "write": "^$", "read": "^$"}, nil)
	state, _ := p.read(t, &fakes.Publisher{}, map[string]any{"address": "/amq/queue/in"})
	wantDown(t, state, contract.ReasonAuthenticationFailed, "/amq/queue/in", "amqp:unauthorized-access")
	write := p.sink(t, map[string]any{"address": "/exchange/amq.topic/x"})
	if err := write(fakes.Delivery("1", `{}`))[0]; !unavailableFor(err, contract.ReasonAuthenticationFailed, "/exchange/amq.topic/x") {
		t.Error(err)
	}
}

func TestMissingVirtualHost(t *testing.T) {
	p := newPlace(t)
	p.API(t, http.MethodDelete, "/api/vhosts/"+p.name, nil, nil)
	s := p.newSink(t, map[string]any{"address": "/queue/a"})
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprint(p.PlainPort)) {
		t.Error(err)
	}
}

// Who we are says a client certificate, or nobody.
func TestMechanisms(t *testing.T) {
	p := newPlace(t, "in")
	p.put(t, "in", &amqp.Message{Data: [][]byte{[]byte(`1`)}})
	cert, key, err := p.CA.Issue(time.Now().Add(time.Hour), p.name)
	if err != nil {
		t.Fatal(err)
	}
	p.secrets.Set(map[string]string{"ca.crt": p.CA.PEM, "tls.crt": cert, "tls.key": key})
	config := p.config()
	config.Auth.Kind, config.TLS = contract.AuthAnonymous, &contract.TLS{CA: true, Certificate: true}
	secure := map[string]any{"servers": []string{fmt.Sprintf("amqps://%s:%d", p.Host, p.Port)}, "hostname": "vhost:" + p.name}
	bus := &fakes.Publisher{}
	run(t, bus, fakes.Runtime(t, config, p.secrets, nil), map[string]any{"connection": secure, "address": "/amq/queue/in"})
	wantStored(t, bus, 1)

	stranger := &fakes.Secrets{}
	if cert, key, err = p.CA.Issue(time.Now().Add(time.Hour), "nobody-knows-me"); err != nil {
		t.Fatal(err)
	}
	stranger.Set(map[string]string{"ca.crt": p.CA.PEM, "tls.crt": cert, "tls.key": key})
	state, _ := run(t, &fakes.Publisher{}, fakes.Runtime(t, config, stranger, nil), map[string]any{"connection": secure, "address": "/amq/queue/in"})
	wantDown(t, state, contract.ReasonAuthenticationFailed, "certificate")

	anonymous := p.config()
	anonymous.Auth.Kind = contract.AuthAnonymous
	s, err := NewSink(fakes.Runtime(t, anonymous, p.secrets, nil), fakes.JSON(t, map[string]any{"connection": p.connection(), "send": map[string]any{"address": "/amq/queue/in"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSinkSaysAll(t *testing.T) {
	p := newPlace(t, "out")
	write := p.sink(t, map[string]any{
		"address": "/amq/queue/out", "subject": "{data.kind}", "properties": map[string]any{"unit": "{data.unit}"}, "body": "Value", "grouped": true, "expiration": "1h", "priority": 7, "transient": true,
	})
	text, binary, long := fakes.Delivery("1", `{"kind":"arrest","unit":7}`), fakes.Delivery("2", `{"kind":"b","unit":8}`), fakes.Delivery(strings.Repeat("3", 300), `{"kind":"c","unit":9}`)
	text.PartitionKey, binary.Format = "person-17", sdk.FormatBinary
	for i, err := range write(text, long) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	got := p.take(t, "out", 2)
	m := got[0]
	if m.Value != `{"kind":"arrest","unit":7}` || *m.Properties.Subject != "arrest" || *m.Properties.GroupID != "person-17" || m.ApplicationProperties["unit"] != "7" ||
		m.Header.Durable || m.Header.Priority != 7 || m.Header.TTL <= 0 || m.Header.TTL > time.Hour {
		t.Errorf("%+v %+v %+v", m, m.Header, m.Properties)
	}
	if id, _ := got[1].Properties.MessageID.(string); !strings.HasPrefix(id, "sha256-") || got[1].Properties.GroupID != nil {
		t.Errorf("%+v", got[1].Properties)
	}
	write = p.sink(t, map[string]any{"address": "/amq/queue/out", "body": "Value"})
	if err := write(binary)[0]; err != nil {
		t.Fatal(err)
	}
	if v, _ := p.take(t, "out", 1)[0].Value.([]byte); string(v) != string(binary.Data) {
		t.Errorf("%q", v)
	}
}

// One of many has an address where nothing is: its own error, and the others arrive. More addresses than links are kept.
func TestEachItsOwnAddress(t *testing.T) {
	var queues []string
	for i := range maxIdle + maxLanes {
		queues = append(queues, fmt.Sprintf("q%d", i))
	}
	p := newPlace(t, queues...)
	p.API(t, http.MethodPut, "/api/exchanges/"+p.name+"/there", map[string]any{"type": "topic", "durable": true}, nil)
	for _, q := range queues {
		p.API(t, http.MethodPost, "/api/bindings/"+p.name+"/e/there/q/"+q, map[string]any{"routing_key": q}, nil)
	}
	write := p.sink(t, map[string]any{"address": "/exchange/{data.exchange}/{data.key}"})
	for round := range 2 {
		var batch []*sdk.Delivery
		for _, q := range queues {
			for _, exchange := range []string{"there", "there"} {
				batch = append(batch, fakes.Delivery(fmt.Sprintf("%s-%d-%d", q, round, len(batch)), fmt.Sprintf(`{"exchange":%q,"key":%q}`, exchange, q)))
			}
		}
		batch[5] = fakes.Delivery("bad", `{"exchange":"nowhere","key":"x"}`)
		batch[9] = fakes.Delivery("none", `{"exchange":"there"}`)
		for i, err := range write(batch...) {
			switch {
			case i == 5:
				if !sdk.IsPermanent(err) || !strings.Contains(err.Error(), "nowhere") || !strings.Contains(err.Error(), "amqp:not-found") {
					t.Errorf("round %d: %v", round, err)
				}
			case i == 9:
				if !sdk.IsPermanent(err) {
					t.Errorf("round %d: %v", round, err)
				}
			case err != nil:
				t.Errorf("round %d, message %d: %v", round, i, err)
			}
		}
	}
	for i, q := range queues {
		want := 4
		if i == 2 || i == 4 {
			want = 2 // one of each round was bad
		}
		if n := p.Messages(t, p.name, q); n != want {
			t.Errorf("%d messages in %s, want %d", n, q, want)
		}
	}
}

// The server ends the session over a message that it does not take: that one is known, and the others arrive.
func TestOneIsTooLarge(t *testing.T) {
	p := newPlace(t, "out")
	write := p.sink(t, map[string]any{"address": "/amq/queue/out", "body": "Value"})
	// RabbitMQ counts the whole section as the body, and takes 8 MiB.
	large := fakes.Delivery("large", `"`+strings.Repeat("x", contract.MaxMessageSize-2)+`"`)
	for i, err := range write(fakes.Delivery("1", `1`), large, fakes.Delivery("2", `2`)) {
		switch {
		case i != 1 && err != nil:
			t.Errorf("%d: %v", i, err)
		case i == 1 && (!sdk.IsPermanent(err) || !strings.Contains(err.Error(), "amqp:precondition-failed")):
			t.Error(err)
		}
	}
	seen := map[any]bool{}
	for range p.Messages(t, p.name, "out") {
		seen[p.take(t, "out", 1)[0].Value] = true
	}
	if len(seen) != 2 || !seen["1"] || !seen["2"] {
		t.Errorf("%v", seen)
	}
}

// RabbitMQ forgets a part of the credit at times, when it is given while it sends: the source does not wait for what never comes.
func TestManyMessagesWithLittleCredit(t *testing.T) {
	p := newPlace(t, "in")
	const many = 4000
	batch := make([]*amqp.Message, many)
	for i := range batch {
		batch[i] = &amqp.Message{Data: [][]byte{fmt.Append(nil, i)}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	sender, err := p.other.NewSender(ctx, "/amq/queue/in", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range batch {
		if _, err := sender.SendWithReceipt(ctx, m, nil); err != nil {
			t.Fatal(err)
		}
	}
	bus := &fakes.Publisher{}
	_, stop := p.read(t, bus, map[string]any{"address": "/amq/queue/in", "prefetch": 16})
	for i, m := range wantStored(t, bus, many) {
		if string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("%s comes as number %d", m.Data, i)
		}
	}
	stop()
}

// deaf is a connection that never hears that a session has ended.
type deaf struct {
	net.Conn
	rest []byte
}

// Read implements net.Conn.
func (c *deaf) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		var head [8]byte
		if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
			return 0, err
		}
		var body []byte
		if string(head[:4]) != "AMQP" {
			body = make([]byte, int(binary.BigEndian.Uint32(head[:4]))-len(head))
			if _, err := io.ReadFull(c.Conn, body); err != nil {
				return 0, err
			}
		}
		if !bytes.HasPrefix(body, []byte{0, 0x53, 0x17}) {
			c.rest = slices.Concat(head[:], body)
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// RabbitMQ 3 forgets at times to say that a session has ended.
func TestEndsOfSessionsWithoutAnswer(t *testing.T) {
	p := newPlace(t, "orders")
	rt := fakes.Runtime(t, p.config(), p.secrets, nil)
	var dialled atomic.Int64
	rt.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		dialled.Add(1)
		return &deaf{Conn: conn}, err
	}
	for name, address := range map[string]string{"one address": "/amq/queue/orders", "an address of each message": "/amq/queue/${attributes.queue}"} {
		t.Run(name, func(t *testing.T) {
			dialled.Store(0)
			s, err := NewSink(rt, fakes.JSON(t, map[string]any{"connection": p.connection(), "send": map[string]any{"address": address}}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			fakes.Eventually(t, within, "the connection is replaced", func() bool {
				if err := s.Check(t.Context()); err != nil {
					t.Error(err)
				}
				return dialled.Load() > 1
			})
		})
	}
}
