package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
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

// queues is started by the first test that needs it.
var queues struct {
	once   sync.Once
	server *rabbitmqtest.Server
	err    error
}

var accounts atomic.Int64

func stopRabbitMQ() {
	if queues.server != nil {
		queues.server.Close()
	}
}

// rabbit is a user with a virtual host of the same name, and in it a queue.
type rabbit struct {
	*rabbitmqtest.Server
	name string
}

const rabbitQueue = "arrests"

func newRabbit(t *testing.T) *rabbit {
	t.Helper()
	queues.once.Do(func() { queues.server, queues.err = rabbitmqtest.Start("rabbitmq_stomp", "rabbitmq_amqp1_0") })
	if queues.err != nil {
		t.Fatal(queues.err)
	}
	if !queues.server.Running() { // a test before this one has failed
		if err := queues.server.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	r := &rabbit{queues.server, fmt.Sprintf("conformance%d", accounts.Add(1))}
	r.Account(t, r.name, "first-password")
	t.Cleanup(func() {
		if r.Running() {
			r.API(t, http.MethodDelete, "/api/vhosts/"+r.name, nil, nil)
		}
	})
	r.declare(t)
	return r
}

func (r *rabbit) declare(t *testing.T) {
	t.Helper()
	r.API(t, http.MethodPut, "/api/queues/"+r.name+"/"+rabbitQueue, map[string]any{"durable": true}, nil)
}

func (r *rabbit) remove(t *testing.T) {
	t.Helper()
	r.API(t, http.MethodDelete, "/api/queues/"+r.name+"/"+rabbitQueue, nil, nil)
}

func (r *rabbit) connection() map[string]any {
	return map[string]any{"servers": []string{fmt.Sprintf("amqps://%s:%d", r.Host, r.Port)}, "virtualHost": r.name}
}

func (r *rabbit) endpoint() string { return fmt.Sprintf("amqps://%s:%d/%s", r.Host, r.Port, r.name) }

func (r *rabbit) config() contract.Config {
	return contract.Config{
		Auth: contract.Auth{Kind: contract.AuthBasic},
		TLS:  &contract.TLS{CA: true, Certificate: true, CAFrom: "secret mq-ca key ca.crt", CertificateFrom: "secret mq-client"},
	}
}

func (r *rabbit) secrets(t *testing.T) map[string]string {
	t.Helper()
	return merged(clientCertificate(t, r.CA), map[string]string{"username": r.name, "password": "first-password", "ca.crt": r.CA.PEM})
}

func (r *rabbit) start(t *testing.T) {
	t.Helper()
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
}

func (r *rabbit) rotate(t *testing.T) map[string]string {
	t.Helper()
	r.User(t, r.name, "second-password")
	return map[string]string{"password": "second-password"}
}

// publish messages from..to-1, confirmed.
func (r *rabbit) publish(t *testing.T, from, to, size int, change func(*amqp.Publishing)) {
	t.Helper()
	channel := r.Channel(t, r.name)
	defer func() { _ = channel.Close() }()
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	var last *amqp.DeferredConfirmation
	for i := from; i < to; i++ {
		p := amqp.Publishing{
			MessageId: "message-" + strconv.Itoa(i), ContentType: "application/json", DeliveryMode: amqp.Persistent,
			Body: fmt.Appendf(nil, `{"id":%d,"v":%q}`, i, strings.Repeat("x", size)),
		}
		if change != nil {
			change(&p)
		}
		confirm, err := channel.PublishWithDeferredConfirm("", rabbitQueue, true, false, p)
		if err != nil {
			t.Fatal(err)
		}
		if last = confirm; (i-from)%200 == 199 && !confirm.Wait() {
			t.Fatal("the server does not take the messages")
		}
	}
	if last != nil && !last.Wait() {
		t.Fatal("the server does not take the messages")
	}
}

func newRabbitSource(t *testing.T) *PullHarness {
	t.Helper()
	r := newRabbit(t)
	return &PullHarness{
		System: "rabbitmq", Options: fakes.JSON(t, map[string]any{"connection": r.connection(), "queue": rabbitQueue, "prefetch": 100}),
		Config: r.config(), Secrets: r.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
		WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint:         r.endpoint(), Object: rabbitQueue,
		Put:    func(t *testing.T, from, to, size int) { t.Helper(); r.publish(t, from, to, size, nil) },
		Left:   func(t *testing.T) int { t.Helper(); return r.Messages(t, r.name, rabbitQueue) },
		Window: 100, Ordered: true, Shared: true,
		Stop: func(*testing.T) { r.Kill() }, Start: r.start, Remove: r.remove, Restore: r.declare, Rotate: r.rotate,
		Traced: func(t *testing.T, i int, traceparent string) {
			t.Helper()
			r.publish(t, i, i+1, 10, func(p *amqp.Publishing) { p.Headers = amqp.Table{"traceparent": traceparent} })
		},
		Mapped: func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
			t.Helper()
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			r.publish(t, i, i+1, 10, func(p *amqp.Publishing) {
				p.CorrelationId, p.ReplyTo, p.AppId, p.Type, p.Timestamp, p.ContentType = "c-1", "answers", "custody", "arrest", at, "application/vnd.arrest+json"
				p.Headers = amqp.Table{"Unit-ID": "7", "x-death": amqp.Table{}, "count": int64(5), "tracestate": "a=b"}
			})
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				if m.ID != "message-"+strconv.Itoa(i) || !m.Time.Equal(at) || m.ContentType != "application/vnd.arrest+json" {
					t.Errorf("%+v", m)
				}
				want := map[string]string{
					"correlationid": "c-1", "replyto": "answers", "appid": "custody", "messagetype": "arrest", "routingkey": rabbitQueue, "unitid": "7", "count": "5",
				}
				if got := fmt.Sprint(m.Headers); got != fmt.Sprint(want) {
					t.Errorf("headers %s, want %v", got, want)
				}
			}
		},
	}
}

func TestRabbitMQSource(t *testing.T) { PullSources(t, newRabbitSource) }

// rabbitSink is a harness's system: what it has read of its queue.
type rabbitSink struct {
	*rabbit
	seen []amqp.Delivery
}

// read what is new in the queue.
func (s *rabbitSink) read(t *testing.T) []amqp.Delivery {
	t.Helper()
	channel := s.Channel(t, s.name)
	defer func() { _ = channel.Close() }()
	for {
		d, ok, err := channel.Get(rabbitQueue, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return s.seen
		}
		d.Body, d.Headers["number"] = nil, number(t, d.Body)
		s.seen = append(s.seen, d)
	}
}

func (s *rabbitSink) effects(t *testing.T) map[int]int {
	t.Helper()
	effects := map[int]int{}
	for _, d := range s.read(t) {
		effects[int(d.Headers["number"].(int64))]++
	}
	return effects
}

func (s *rabbitSink) identities(t *testing.T) map[int]int {
	t.Helper()
	ids := map[int]map[string]bool{}
	for _, d := range s.read(t) {
		n := int(d.Headers["number"].(int64))
		if ids[n] == nil {
			ids[n] = map[string]bool{}
		}
		ids[n][d.MessageId] = true
	}
	counts := map[int]int{}
	for n, all := range ids {
		counts[n] = len(all)
	}
	return counts
}

func (s *rabbitSink) arrived(t *testing.T) []int {
	t.Helper()
	var order []int
	for _, d := range s.read(t) {
		order = append(order, int(d.Headers["number"].(int64)))
	}
	return order
}

func number(t *testing.T, body []byte) int64 {
	t.Helper()
	var record struct{ ID int64 }
	if err := json.Unmarshal(body, &record); err != nil {
		t.Fatal(err)
	}
	return record.ID
}

func newRabbitSink(t *testing.T) *SinkHarness {
	t.Helper()
	s := &rabbitSink{rabbit: newRabbit(t)}
	bind := func(t *testing.T) {
		t.Helper()
		s.API(t, http.MethodPut, "/api/exchanges/"+s.name+"/custody", map[string]any{"type": "topic", "durable": true}, nil)
		s.API(t, http.MethodPost, "/api/bindings/"+s.name+"/e/custody/q/"+rabbitQueue, map[string]any{"routing_key": "arrest.*"}, nil)
	}
	bind(t)
	return &SinkHarness{
		System: "rabbitmq",
		Options: fakes.JSON(t, map[string]any{
			"connection": s.connection(),
			"publish":    map[string]any{"exchange": "custody", "routingKey": "{has(data.poison) ? 'nobody' : 'arrest.made'}", "headers": map[string]any{"unit": "{data.id}"}},
		}),
		Config: s.config(), Secrets: s.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, CheckKnowsCredentials: true,
		WrongCA: map[string]string{"ca.crt": mustCA(t).PEM}, WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint: s.endpoint(),
		Good:     message,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
		},
		Stop: func(*testing.T) { s.Kill() }, Start: s.start, Rotate: s.rotate,
		Slow: func(*testing.T) func() { s.Freeze(); return s.Thaw },
		Remove: func(t *testing.T) {
			t.Helper()
			s.API(t, http.MethodDelete, "/api/exchanges/"+s.name+"/custody", nil, nil)
		},
		Restore:     bind,
		AtLeastOnce: true,
		Effects:     s.effects, Identities: s.identities, Arrived: s.arrived,
		Mapped: s.mapped,
	}
}

func (s *rabbitSink) mapped(*testing.T) (*sdk.Delivery, func(t *testing.T)) {
	d := message(1, 10)
	d.Subject, d.PartitionKey = "person/17", "17"
	d.Headers = map[string]string{contract.HeaderTraceParent: traceParent, contract.HeaderTraceState: "a=b", "unit": "7", "correlationid": "c-1"}
	return d, func(t *testing.T) {
		t.Helper()
		all := s.read(t)
		if len(all) != 1 {
			t.Fatalf("%d messages", len(all))
		}
		got := all[0]
		for name, want := range map[string]string{
			"cloudEvents:specversion": "1.0", "cloudEvents:id": d.ID, "cloudEvents:source": d.Source, "cloudEvents:type": d.Type, "cloudEvents:subject": "person/17",
			"cloudEvents:time": "2026-01-02T03:04:05Z", "cloudEvents:unit": "7", "cloudEvents:partitionkey": "17", "traceparent": traceParent, "tracestate": "a=b", "unit": "1",
		} {
			if got.Headers[name] != want {
				t.Errorf("%s is %q, want %q", name, got.Headers[name], want)
			}
		}
		if got.MessageId != d.Durable+"/"+d.MessageID || got.Type != d.Type || got.CorrelationId != "c-1" || got.ContentType != "application/json" ||
			got.DeliveryMode != amqp.Persistent || !got.Timestamp.Equal(d.Time) || got.AppId != "metip" || got.RoutingKey != "arrest.made" {
			t.Errorf("%+v", got)
		}
	}
}

func TestRabbitMQSink(t *testing.T) { Sinks(t, newRabbitSink) }

// respond to requests in the queue, as a program of somebody else's does, until the server ends.
func (r *rabbit) respond(t *testing.T) {
	t.Helper()
	channel := r.Channel(t, r.name)
	requests, err := channel.Consume(rabbitQueue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for d := range requests {
			path, _ := d.Headers["metip-path"].(string)
			id, err := strconv.Atoi(strings.TrimPrefix(path, "/persons/"))
			if err != nil {
				continue // it is never answered
			}
			_ = channel.PublishWithContext(t.Context(), "", d.ReplyTo, false, false, amqp.Publishing{
				CorrelationId: d.CorrelationId, ContentType: "application/json", Body: fmt.Appendf(nil, `{"id":%d,"size":%d}`, id, len(d.Body)),
			})
		}
	}()
}

func newRabbitService(t *testing.T) *ServiceHarness {
	t.Helper()
	r := newRabbit(t)
	r.respond(t)
	return &ServiceHarness{
		System: "rabbitmq", Options: fakes.JSON(t, map[string]any{"connection": r.connection(), "routingKey": rabbitQueue}),
		Config: r.config(), Secrets: r.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint: r.endpoint(),
		Good:     func(i, size int) *sdk.Request { return calling("POST", "/persons/"+strconv.Itoa(i), size) },
		Answers: func(i int, a *sdk.Answer) bool {
			var got struct{ ID int }
			return a.Status == 200 && json.Unmarshal(a.Data, &got) == nil && got.ID == i && a.Format == sdk.FormatJSON
		},
		Hang:   func() *sdk.Request { return calling("GET", "/hang", 0) },
		Stop:   func(*testing.T) { r.Kill() },
		Start:  func(t *testing.T) { t.Helper(); r.start(t); r.respond(t) },
		Rotate: r.rotate,
	}
}

func TestRabbitMQService(t *testing.T) { Services(t, newRabbitService) }
