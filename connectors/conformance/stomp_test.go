package conformance

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// RabbitMQ speaks STOMP by its plugin: the queues, users and faults are those of its own protocol. ActiveMQ's part is in package stomp.
func (r *rabbit) stomp() (connection map[string]any, endpoint string) {
	endpoint = fmt.Sprintf("stomp+ssl://%s:%d", r.Host, r.STOMPPort)
	return map[string]any{"servers": []string{endpoint}, "virtualHost": r.name}, endpoint
}

const stompQueue = "/amq/queue/" + rabbitQueue

func newSTOMPSource(t *testing.T) *PullHarness {
	t.Helper()
	r := newRabbit(t)
	connection, endpoint := r.stomp()
	return &PullHarness{
		System: "stomp", Options: fakes.JSON(t, map[string]any{"connection": connection, "destination": stompQueue, "prefetch": 100}),
		Config: r.config(), Secrets: r.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
		WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint:         endpoint, Object: rabbitQueue,
		Put:    func(t *testing.T, from, to, size int) { t.Helper(); r.publish(t, from, to, size, nil) },
		Left:   func(t *testing.T) int { t.Helper(); return r.Messages(t, r.name, rabbitQueue) },
		Window: 100 + 100 + 1, Ordered: true, Shared: true,
		Stop: func(*testing.T) { r.Kill() }, Start: r.start, Remove: r.remove, Restore: r.declare, Rotate: r.rotate,
		Traced: func(t *testing.T, i int, traceparent string) {
			t.Helper()
			r.publish(t, i, i+1, 10, func(p *amqp.Publishing) { p.Headers = amqp.Table{"traceparent": traceparent} })
		},
		Mapped: func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
			t.Helper()
			r.publish(t, i, i+1, 10, func(p *amqp.Publishing) {
				p.CorrelationId, p.ReplyTo, p.Type, p.ContentType = "c-1", "answers", "arrest", "application/vnd.arrest+json"
				p.Headers = amqp.Table{"Unit-ID": "7", "tracestate": "a=b"}
			})
			return func(t *testing.T, m *sdk.Message) {
				t.Helper()
				if m.ID != "message-"+strconv.Itoa(i) || m.ContentType != "application/vnd.arrest+json" {
					t.Errorf("%+v", m)
				}
				want := map[string]string{"correlationid": "c-1", "replyto": "/reply-queue/answers", "jmstype": "arrest", "unitid": "7", "destination": "/queue/" + rabbitQueue}
				if got := fmt.Sprint(m.Headers); got != fmt.Sprint(want) {
					t.Errorf("headers %s, want %v", got, want)
				}
			}
		},
	}
}

func TestSTOMPSource(t *testing.T) { PullSources(t, newSTOMPSource) }

func newSTOMPSink(t *testing.T) *SinkHarness {
	t.Helper()
	s := &rabbitSink{rabbit: newRabbit(t)}
	connection, endpoint := s.stomp()
	return &SinkHarness{
		System: "stomp",
		Options: fakes.JSON(t, map[string]any{
			"connection": connection,
			"send":       map[string]any{"destination": "/amq/queue/{has(data.poison) ? data.missing : '" + rabbitQueue + "'}", "headers": map[string]any{"unit": "{data.id}"}},
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
		Slow:        func(*testing.T) func() { s.Freeze(); return s.Thaw },
		AtLeastOnce: true,
		Effects:     s.effects, Identities: s.identities,
		Mapped: func(t *testing.T) (*sdk.Delivery, func(t *testing.T)) {
			t.Helper()
			d := message(1, 10)
			d.Subject, d.PartitionKey = "person/17", "p:17"
			d.Headers = map[string]string{contract.HeaderTraceParent: traceParent, "unit": "7", "correlationid": "c-1"}
			return d, func(t *testing.T) {
				t.Helper()
				seen := s.read(t)
				if len(seen) != 1 {
					t.Fatalf("%d messages", len(seen))
				}
				got := seen[0]
				for name, want := range map[string]string{
					"ce_id": d.ID, "ce_source": d.Source, "ce_type": d.Type, "ce_subject": "person/17", "ce_partitionkey": "p:17", "ce_unit": "7",
					"ce_time": d.Time.UTC().Format(time.RFC3339Nano), "traceparent": traceParent, "unit": "1",
				} {
					if got.Headers[name] != want {
						t.Errorf("%s is %v, want %q", name, got.Headers[name], want)
					}
				}
				if got.CorrelationId != "c-1" || got.ContentType != "application/json" || got.DeliveryMode != amqp.Persistent {
					t.Errorf("%+v", got)
				}
			}
		},
	}
}

func TestSTOMPSink(t *testing.T) { Sinks(t, newSTOMPSink) }
