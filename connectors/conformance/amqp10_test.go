package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	amqp10 "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/rabbitmqtest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// RabbitMQ speaks AMQP 1.0 by its plugin: the queues, users and faults are those of its own protocol. What it carries of a message beside its body
// and a few properties only AMQP 1.0 itself can see.
func (r *rabbit) amqp10() (connection map[string]any, endpoint string) {
	endpoint = fmt.Sprintf("amqps://%s:%d", r.Host, r.Port)
	return map[string]any{"servers": []string{endpoint}, "hostname": "vhost:" + r.name}, endpoint
}

const amqp10Queue = "/amq/queue/" + rabbitQueue

// put a message into the queue by AMQP 1.0.
func (r *rabbit) put(t *testing.T, m *amqp10.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullWithin)
	defer cancel()
	sender, err := r.AMQP10(t, r.name).NewSender(ctx, amqp10Queue, nil)
	if err == nil {
		err = sender.Send(ctx, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func amqp10Message(i int) *amqp10.Message {
	m := amqp10.NewMessage(fmt.Appendf(nil, `{"id":%d}`, i))
	m.Header = &amqp10.MessageHeader{Durable: true, Priority: 4}
	m.Properties = &amqp10.MessageProperties{MessageID: "message-" + strconv.Itoa(i)}
	return m
}

func newAMQP10Source(t *testing.T) *PullHarness {
	t.Helper()
	r := newRabbit(t)
	connection, endpoint := r.amqp10()
	return &PullHarness{
		System: "amqp10", Options: fakes.JSON(t, map[string]any{"connection": connection, "address": amqp10Queue, "prefetch": 100}),
		Config: r.config(), Secrets: r.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
		WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint:         endpoint, Object: rabbitQueue,
		Put:    func(t *testing.T, from, to, size int) { t.Helper(); r.publish(t, from, to, size, nil) },
		Left:   func(t *testing.T) int { t.Helper(); return r.Messages(t, r.name, rabbitQueue) },
		Window: 100, Ordered: true, Shared: true,
		Stop: func(*testing.T) { r.Kill() }, Start: r.start, Remove: r.remove, Restore: r.declare, Rotate: r.rotate,
		Traced: func(t *testing.T, i int, traceparent string) {
			t.Helper()
			m := amqp10Message(i)
			m.ApplicationProperties = map[string]any{"traceparent": traceparent}
			r.put(t, m)
		},
		Mapped: func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
			t.Helper()
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			m := amqp10Message(i)
			p := m.Properties
			text := func(s string) *string { return &s }
			p.CorrelationID, p.ReplyTo, p.To, p.Subject, p.UserID = uint64(7), text("answers"), text(amqp10Queue), text("arrest"), []byte(rabbitmqtest.Administrator)
			p.ContentType, p.ContentEncoding, p.CreationTime, p.GroupID = text("application/vnd.arrest+json"), text("identity"), &at, text("person-17")
			m.ApplicationProperties = map[string]any{"Unit-ID": "7", "count": int64(5), "label": "none", "bytes": []byte{1}, "tracestate": "a=b"}
			r.put(t, m)
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				if m.ID != "message-"+strconv.Itoa(i) || !m.Time.Equal(at) || m.ContentType != "application/vnd.arrest+json" || m.PartitionKey != "person-17" {
					t.Errorf("%+v", m)
				}
				want := map[string]string{
					"correlationid": "ulong:7", "replyto": "answers", "destination": amqp10Queue, "label": "arrest", "userid": rabbitmqtest.Administrator, "contentencoding": "identity",
					"unitid": "7", "count": "5",
				}
				if got := fmt.Sprint(m.Headers); got != fmt.Sprint(want) {
					t.Errorf("headers %s, want %v", got, want)
				}
			}
		},
	}
}

func TestAMQP10Source(t *testing.T) { PullSources(t, newAMQP10Source) }

func newAMQP10Sink(t *testing.T) *SinkHarness {
	t.Helper()
	s := &rabbitSink{rabbit: newRabbit(t)}
	connection, endpoint := s.amqp10()
	bind := func(t *testing.T) {
		t.Helper()
		s.API(t, http.MethodPut, "/api/exchanges/"+s.name+"/custody", map[string]any{"type": "topic", "durable": true}, nil)
		s.API(t, http.MethodPost, "/api/bindings/"+s.name+"/e/custody/q/"+rabbitQueue, map[string]any{"routing_key": "arrest.*"}, nil)
	}
	bind(t)
	return &SinkHarness{
		System: "amqp10",
		Options: fakes.JSON(t, map[string]any{
			"connection": connection,
			"send":       map[string]any{"address": "/exchange/custody/arrest.made", "properties": map[string]any{"unit": "{has(data.poison) ? data.missing : data.id}"}},
		}),
		Config: s.config(), Secrets: s.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, CheckKnowsCredentials: true,
		WrongCA: map[string]string{"ca.crt": mustCA(t).PEM}, WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint: endpoint,
		Good:     message,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
		},
		Stop: func(*testing.T) { s.Kill() }, Start: s.start, Rotate: s.rotate,
		Slow: func(*testing.T) func() { s.Freeze(); return s.Thaw },
		Remove: func(t *testing.T) {
			t.Helper()
			s.API(t, http.MethodDelete, "/api/exchanges/"+s.name+"/custody", nil, nil)
		}, Restore: bind,
		AtLeastOnce: true, Effects: s.effects, Identities: s.identities, Arrived: s.arrived,
		Mapped: s.mapped10,
	}
}

func (s *rabbitSink) mapped10(*testing.T) (*sdk.Delivery, func(t *testing.T)) {
	d := message(1, 10)
	d.Subject, d.PartitionKey = "person/17", "17"
	d.Headers = map[string]string{contract.HeaderTraceParent: traceParent, contract.HeaderTraceState: "a=b", "unit": "7", "correlationid": "c-1"}
	return d, func(t *testing.T) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), pullWithin)
		defer cancel()
		receiver, err := s.AMQP10(t, s.name).NewReceiver(ctx, amqp10Queue, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := receiver.Receive(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": d.ID, "cloudEvents_source": d.Source, "cloudEvents_type": d.Type, "cloudEvents_subject": "person/17",
			"cloudEvents_time": "2026-01-02T03:04:05Z", "cloudEvents_unit": "7", "cloudEvents_partitionkey": "17", "traceparent": traceParent, "tracestate": "a=b", "unit": "1",
		} {
			if got.ApplicationProperties[name] != want {
				t.Errorf("%s is %q, want %q", name, got.ApplicationProperties[name], want)
			}
		}
		p := got.Properties
		if p.MessageID != d.Durable+"/"+d.MessageID || p.CorrelationID != "c-1" || *p.ContentType != "application/json" || !got.Header.Durable || !p.CreationTime.Equal(d.Time) {
			t.Errorf("%+v %+v", got.Header, p)
		}
	}
}

func TestAMQP10Sink(t *testing.T) { Sinks(t, newAMQP10Sink) }
