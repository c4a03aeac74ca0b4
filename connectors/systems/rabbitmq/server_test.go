package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

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

// place is a virtual host of a test's own, without TLS: the behaviour suite has that.
type place struct {
	*rabbitmqtest.Server
	name    string
	channel *amqp.Channel
	secrets *fakes.Secrets
}

func newPlace(t testing.TB, queues ...string) *place {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = rabbitmqtest.Start() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	p := &place{Server: shared.server, name: fmt.Sprintf("place%d", shared.count.Add(1)), secrets: &fakes.Secrets{}}
	p.Account(t, p.name, "password")
	p.secrets.Set(map[string]string{"username": p.name, "password": "password"})
	p.channel = p.Channel(t, p.name)
	for _, queue := range queues {
		if _, err := p.channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *place) connection() map[string]any {
	return map[string]any{"servers": []string{fmt.Sprintf("amqp://%s:%d", p.Host, p.PlainPort)}, "virtualHost": p.name}
}

func (p *place) config() *contract.Config {
	return &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "test"}}
}

func (p *place) put(t testing.TB, queue string, messages ...amqp.Publishing) {
	t.Helper()
	for _, m := range messages {
		if err := p.channel.PublishWithContext(t.Context(), "", queue, true, false, m); err != nil {
			t.Fatal(err)
		}
	}
}

// next message of a queue.
func (p *place) next(t testing.TB, queue string) amqp.Delivery {
	t.Helper()
	var d amqp.Delivery
	fakes.Eventually(t, 30*time.Second, "a message is in "+queue, func() bool {
		var ok bool
		var err error
		if d, ok, err = p.channel.Get(queue, true); err != nil {
			t.Fatal(err)
		}
		return ok
	})
	return d
}

// read a queue with these options besides, until the end of the test.
func (p *place) read(t testing.TB, bus sdk.Publisher, options map[string]any) (state *fakes.Reporter, stop func()) {
	t.Helper()
	options["connection"] = p.connection()
	s, err := NewSource(fakes.Runtime(t, p.config(), p.secrets, nil), fakes.JSON(t, options))
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

func unavailableFor(err error, words ...string) bool {
	var u *sdk.UnavailableError
	if !errors.As(err, &u) || u.Reason != contract.ReasonSystemError {
		return false
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			return false
		}
	}
	return true
}

func body(id, text string) amqp.Publishing {
	return amqp.Publishing{MessageId: id, Body: []byte(text), DeliveryMode: amqp.Persistent}
}

func TestSourceDeadLetters(t *testing.T) {
	p := newPlace(t, "in", "refused")
	bad := body("2", "no JSON")
	bad.Headers, bad.CorrelationId = amqp.Table{"unit": int32(7)}, "c"
	p.put(t, "in", body("1", "1"), bad, body("3", "3"), body("foreign", "4"))
	bus := &refusing{Publisher: &fakes.Publisher{}, id: "foreign"}
	state, stop := p.read(t, bus, map[string]any{"queue": "in", "deadLetter": map[string]any{"routingKey": "refused"}})
	fakes.Eventually(t, 30*time.Second, "the others are stored", func() bool { return len(bus.Stored()) == 2 })
	d := p.next(t, "refused")
	if string(d.Body) != "no JSON" || d.MessageId != "2" || d.CorrelationId != "c" || d.Headers["unit"] != int32(7) || d.Headers["metip-queue"] != "in" ||
		!strings.Contains(fmt.Sprint(d.Headers["metip-error"]), "not JSON") || d.DeliveryMode != amqp.Persistent {
		t.Errorf("%+v", d)
	}
	if d := p.next(t, "refused"); d.MessageId != "foreign" || !strings.Contains(fmt.Sprint(d.Headers["metip-error"]), "schema") {
		t.Errorf("%+v", d)
	}
	if err, _ := state.State(); err != nil {
		t.Error(err)
	}
	stop()
	if n := p.Messages(t, p.name, "in"); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// refusing is a bus whose schema one message breaks.
type refusing struct {
	*fakes.Publisher
	id string
}

func (r *refusing) Publish(ctx context.Context, messages ...*sdk.Message) error {
	for _, m := range messages {
		if m.ID == r.id {
			return fmt.Errorf("%w: at /a", sdk.ErrSchema)
		}
	}
	return r.Publisher.Publish(ctx, messages...)
}

func TestSourceStopsAtWhatItCannotTake(t *testing.T) {
	p := newPlace(t, "in")
	p.put(t, "in", body("1", "1"), body("2", "no JSON"), body("3", "3"))
	bus := &fakes.Publisher{}
	state, stop := p.read(t, bus, map[string]any{"queue": "in"})
	fakes.Eventually(t, 30*time.Second, "the state says so", func() bool {
		err, _ := state.State()
		return unavailableFor(err, "message 2", "queue in", "deadLetter", "not JSON")
	})
	if n := len(bus.Stored()); n != 1 {
		t.Errorf("%d messages are stored", n)
	}
	// It is put back, so that it can be taken out.
	if d := p.next(t, "in"); d.MessageId != "2" {
		t.Errorf("the first message is %s", d.MessageId)
	}
	p.secrets.Set(map[string]string{"other": "x"}) // it looks at once, not in half a minute
	fakes.Eventually(t, 30*time.Second, "it goes on", func() bool { return len(bus.Stored()) == 2 })
	fakes.Eventually(t, 30*time.Second, "the state is good", func() bool { err, _ := state.State(); return err == nil })
	stop()
}

func TestSourceDeadLetterThatIsNotThere(t *testing.T) {
	p := newPlace(t, "in")
	p.put(t, "in", body("1", "no JSON"))
	state, stop := p.read(t, &fakes.Publisher{}, map[string]any{"queue": "in", "deadLetter": map[string]any{"routingKey": "nowhere"}})
	fakes.Eventually(t, 30*time.Second, "the state says so", func() bool {
		err, _ := state.State()
		return unavailableFor(err, "message 1", "nowhere", "deadLetter")
	})
	stop()
	if n := p.Messages(t, p.name, "in"); n != 1 {
		t.Errorf("%d messages are left", n)
	}
}

func TestSourceOfAVirtualHostThatIsNotThere(t *testing.T) {
	p := newPlace(t)
	options := p.connection()
	options["virtualHost"] = "nowhere"
	s, err := NewSink(fakes.Runtime(t, p.config(), p.secrets, nil), fakes.JSON(t, map[string]any{"connection": options, "publish": map[string]any{"exchange": "e"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Check(t.Context()); !unavailableFor(err, "nowhere") {
		t.Error(err)
	}
}

// publish with these options; every test of a sink ends with a message that passes.
func (p *place) sink(t testing.TB, options map[string]any) func(...*sdk.Delivery) []error {
	t.Helper()
	s, err := NewSink(fakes.Runtime(t, p.config(), p.secrets, nil), fakes.JSON(t, map[string]any{"connection": p.connection(), "publish": options}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(batch ...*sdk.Delivery) []error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return op.Write(ctx, batch)
	}
}

func TestUnroutable(t *testing.T) {
	p := newPlace(t, "out")
	for what, judge := range map[string]func(error) bool{
		unroutableDeadLetter: sdk.IsPermanent,
		unroutableRetry: func(err error) bool {
			var u *sdk.UnavailableError
			return err != nil && !sdk.IsPermanent(err) && !errors.As(err, &u)
		},
		unroutableIgnore: func(err error) bool { return err == nil },
	} {
		write := p.sink(t, map[string]any{"routingKey": "{data.to}", "unroutable": what, "priority": 3, "expiration": "1h", "transient": true})
		got := write(fakes.Delivery("1", `{"to":"out"}`), fakes.Delivery("2", `{"to":"nowhere"}`), fakes.Delivery("3", `{"to":"out"}`), fakes.Delivery("4", `{}`), fakes.Delivery("5", `{"to":""}`))
		if got[0] != nil || !judge(got[1]) || got[2] != nil || !sdk.IsPermanent(got[3]) || !sdk.IsPermanent(got[4]) {
			t.Errorf("%s: %v", what, got)
		}
		for range 2 {
			if d := p.next(t, "out"); d.Priority != 3 || d.Expiration != "3600000" || d.DeliveryMode != amqp.Transient {
				t.Errorf("%+v", d)
			}
		}
	}
}

func TestQueueThatIsFull(t *testing.T) {
	p := newPlace(t)
	if _, err := p.channel.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": 2, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	write := p.sink(t, map[string]any{"routingKey": "full"})
	got := write(fakes.Delivery("1", `1`), fakes.Delivery("2", `2`), fakes.Delivery("3", `3`))
	if got[0] != nil || got[1] != nil || !unavailableFor(got[2], "full") {
		t.Fatal(got)
	}
	p.next(t, "full")
	fakes.Eventually(t, 30*time.Second, "it passes", func() bool { return write(fakes.Delivery("3", `3`))[0] == nil })
}

func TestMessageThatIsTooLargeForTheServer(t *testing.T) {
	p := newPlace(t, "out")
	write := p.sink(t, map[string]any{"routingKey": "out"})
	huge := fakes.Delivery("2", `"`+strings.Repeat("x", 9<<20)+`"`)
	got := write(fakes.Delivery("1", `1`), huge, fakes.Delivery("3", `3`))
	if got[0] != nil || !sdk.IsPermanent(got[1]) || got[2] != nil {
		t.Error(got)
	}
	seen := map[string]bool{}
	for !seen[`1`] || !seen[`3`] {
		seen[string(p.next(t, "out").Body)] = true
	}
}

func TestRequestAndReply(t *testing.T) {
	p := newPlace(t, "persons")
	requests, err := p.channel.Consume("persons", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan amqp.Delivery, 8)
	go func() {
		for d := range requests {
			seen <- d
			_ = p.channel.PublishWithContext(t.Context(), "", d.ReplyTo, false, false, amqp.Publishing{
				CorrelationId: d.CorrelationId, ContentType: "text/plain", Headers: amqp.Table{"metip-status": int32(404), "http-x-served": "a", "other": "b"}, Body: []byte("nobody"),
			})
		}
	}()
	s, err := NewService(fakes.Runtime(t, p.config(), p.secrets, nil), fakes.JSON(t, map[string]any{"connection": p.connection(), "routingKey": `{headers["query-to"]}`}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	call := func(query string) (*sdk.Answer, error) {
		r := &sdk.Request{Method: "POST", Path: "/x", Query: query, Header: map[string][]string{"x-two": {"1", "2"}}}
		r.ContentType, r.Format, r.Data = "application/json", sdk.FormatJSON, []byte(`{"id":17}`)
		r.Headers = map[string]string{"traceparent": "00-x"}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return s.Call(ctx, r)
	}
	a, err := call("to=persons")
	if err != nil || a.Status != 404 || string(a.Data) != "nobody" || a.ContentType != "text/plain" || a.Format != sdk.FormatText || fmt.Sprint(a.Header) != "map[x-served:[a]]" {
		t.Errorf("%+v, %v", a, err)
	}
	d := <-seen
	if h := fmt.Sprintf("%v %v %v %v %v", d.Headers["metip-method"], d.Headers["metip-path"], d.Headers["metip-query"], d.Headers["http-x-two"], d.Headers["traceparent"]); h != "POST /x to=persons 1, 2 00-x" ||
		d.ContentType != "application/json" || string(d.Body) != `{"id":17}` || d.Expiration == "" || d.Headers["metip-timeout-ms"] == nil {
		t.Errorf("%+v", d)
	}
	for query, status := range map[string]int{"to=nowhere": http.StatusServiceUnavailable, "to=a.b": http.StatusBadRequest, "to=": http.StatusBadRequest, "": http.StatusBadRequest} {
		var refused *sdk.CallError
		if _, err := call(query); !errors.As(err, &refused) || refused.Status != status {
			t.Errorf("%q: %v, want %d", query, err, status)
		}
	}
	if a, err := call("to=persons"); err != nil || a.Status != 404 {
		t.Errorf("%+v, %v", a, err)
	}
}
