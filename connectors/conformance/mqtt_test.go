package conformance

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/mosquittotest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// devices is started by the first test that needs it.
var devices struct {
	once   sync.Once
	server *mosquittotest.Server
	err    error
}

func stopMosquitto() {
	if devices.server != nil {
		devices.server.Close()
	}
}

// mqtt is a user with the topics below its name, and a session of the same name.
type mqtt struct {
	*mosquittotest.Server
	name, version string
	qos           byte
}

func newMQTT(t *testing.T, version string, qos byte) *mqtt {
	t.Helper()
	devices.once.Do(func() { devices.server, devices.err = mosquittotest.Start() })
	if devices.err != nil {
		t.Fatal(devices.err)
	}
	if !devices.server.Running() { // a test before this one has failed
		if err := devices.server.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	m := &mqtt{devices.server, fmt.Sprintf("conformance%d", accounts.Add(1)), version, qos}
	m.User(t, m.name, "first-password")
	c := m.Connect(t, m.name, true) // what is published before somebody has subscribed is nobody's
	c.Subscribe(t, m.name+"/+/made", qos)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.Running() {
			_ = m.Connect(t, m.name, false).Close()
		}
	})
	return m
}

func (m *mqtt) connection() map[string]any {
	return map[string]any{"servers": []string{m.endpoint()}, "version": m.version, "keepAlive": "6s"}
}

func (m *mqtt) endpoint() string { return fmt.Sprintf("mqtts://%s:%d", m.Host, m.Port) }

func (m *mqtt) config() contract.Config {
	return contract.Config{
		Auth: contract.Auth{Kind: contract.AuthBasic},
		TLS:  &contract.TLS{CA: true, Certificate: true, CAFrom: "secret mq-ca key ca.crt", CertificateFrom: "secret mq-client"},
	}
}

func (m *mqtt) secrets(t *testing.T) map[string]string {
	t.Helper()
	return merged(clientCertificate(t, m.CA), map[string]string{"username": m.name, "password": "first-password", "ca.crt": m.CA.PEM})
}

func (m *mqtt) start(t *testing.T) {
	t.Helper()
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
}

func (m *mqtt) rotate(t *testing.T) map[string]string {
	t.Helper()
	m.User(t, m.name, "second-password")
	return map[string]string{"password": "second-password"}
}

func (m *mqtt) publish(t *testing.T, from, to, size int, change func(*packets.Publish)) {
	t.Helper()
	c := m.Connect(t, m.name+"-producer", false)
	var messages []*packets.Publish
	for i := from; i < to; i++ {
		p := &packets.Publish{
			Topic: m.name + "/arrest/made", QoS: m.qos, Payload: fmt.Appendf(nil, `{"id":%d,"v":%q}`, i, strings.Repeat("x", size)),
			Properties: &packets.Properties{User: []packets.User{{Key: "number", Value: strconv.Itoa(i)}}},
		}
		if change != nil {
			change(p)
		}
		messages = append(messages, p)
	}
	c.Publish(t, messages...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func (m *mqtt) left(t *testing.T) int {
	t.Helper()
	c := m.Connect(t, m.name, true)
	n := len(c.Receive(t, false))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func newMQTTSource(t *testing.T, version string, qos byte) *PullHarness {
	t.Helper()
	m := newMQTT(t, version, qos)
	five := version == "5"
	options := map[string]any{"connection": m.connection(), "topics": []string{m.name + "/+/made"}, "clientID": m.name, "qos": qos, "prefetch": 100}
	if five {
		options["idProperty"] = "number"
	} else {
		options["identity"] = "Content"
	}
	h := &PullHarness{
		System: "mqtt", Options: fakes.JSON(t, options), Config: m.config(), Secrets: m.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
		WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint:         m.endpoint(),
		Put:              func(t *testing.T, from, to, size int) { t.Helper(); m.publish(t, from, to, size, nil) },
		Left:             m.left,
		Window:           100, Ordered: true,
		Stop: func(*testing.T) { m.Kill() }, Start: m.start, Rotate: m.rotate,
		Mapped: func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
			t.Helper()
			m.publish(t, i, i+1, 10, func(p *packets.Publish) {
				p.Properties = &packets.Properties{
					ContentType: "application/vnd.arrest+json", ResponseTopic: "answers", CorrelationData: []byte("c-1"),
					User: []packets.User{{Key: "Unit-ID", Value: "7"}, {Key: "number", Value: strconv.Itoa(i)}, {Key: "number", Value: "other"}, {Key: "id", Value: "nobody's"}},
				}
			})
			return func(t *testing.T, got *sdk.Message) {
				t.Helper()
				want := map[string]string{"topic": m.name + "/arrest/made"}
				kind := "application/json"
				if five {
					want["correlationid"], want["replyto"], want["unitid"], want["number"] = "c-1", "answers", "7", strconv.Itoa(i)
					kind = "application/vnd.arrest+json"
				}
				if fmt.Sprint(got.Headers) != fmt.Sprint(want) || got.ContentType != kind || five && got.ID != strconv.Itoa(i) {
					t.Errorf("%+v, want headers %v", got, want)
				}
			}
		},
	}
	if five {
		h.Traced = func(t *testing.T, i int, traceparent string) {
			t.Helper()
			m.publish(t, i, i+1, 10, func(p *packets.Publish) {
				p.Properties.User = append(p.Properties.User, packets.User{Key: "traceparent", Value: traceparent})
			})
		}
	}
	return h
}

func TestMQTTSource(t *testing.T) {
	PullSources(t, func(t *testing.T) *PullHarness { t.Helper(); return newMQTTSource(t, "5", 1) })
}

func TestMQTTSourceQoS2(t *testing.T) {
	PullSources(t, func(t *testing.T) *PullHarness { t.Helper(); return newMQTTSource(t, "5", 2) })
}

func TestMQTT311Source(t *testing.T) {
	PullSources(t, func(t *testing.T) *PullHarness { t.Helper(); return newMQTTSource(t, "3.1.1", 1) })
}

type mqttSink struct {
	*mqtt
	seen []*packets.Publish
}

// read what is new in the session.
func (s *mqttSink) read(t *testing.T) []*packets.Publish {
	t.Helper()
	c := s.Connect(t, s.name, true)
	s.seen = append(s.seen, c.Receive(t, true)...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return s.seen
}

// counts of something that is told of each message, by its number.
func (s *mqttSink) identities(t *testing.T, of func(*packets.Publish) string) map[int]int {
	t.Helper()
	ids := map[int]map[string]bool{}
	for _, p := range s.read(t) {
		n := int(number(t, p.Payload))
		if ids[n] == nil {
			ids[n] = map[string]bool{}
		}
		ids[n][of(p)] = true
	}
	counts := map[int]int{}
	for n, all := range ids {
		counts[n] = len(all)
	}
	return counts
}

func newMQTTSink(t *testing.T, version string, qos byte) *SinkHarness {
	t.Helper()
	s := &mqttSink{mqtt: newMQTT(t, version, qos)}
	publish := map[string]any{"topic": s.name + "/{has(data.poison) ? data.missing : 'arrest'}/made", "qos": qos}
	identity := func(p *packets.Publish) string { return string(p.Payload) } // 3.1.1 carries nothing else
	if version == "5" {
		publish["properties"], publish["expiration"] = map[string]any{"number": "{data.id}"}, "1h"
		identity = func(p *packets.Publish) string { return mosquittotest.Property(p, "metip-message-id") }
	}
	h := &SinkHarness{
		System: "mqtt", Options: fakes.JSON(t, map[string]any{"connection": s.connection(), "publish": publish}), Config: s.config(), Secrets: s.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, CheckKnowsCredentials: true,
		WrongCA: map[string]string{"ca.crt": mustCA(t).PEM}, WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint: s.endpoint(), Good: message,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
		},
		Stop: func(*testing.T) { s.Kill() }, Start: s.start, Rotate: s.rotate,
		Slow:        func(*testing.T) func() { s.Freeze(); return s.Thaw },
		AtLeastOnce: true,
		Effects: func(t *testing.T) map[int]int {
			t.Helper()
			effects := map[int]int{}
			for _, p := range s.read(t) {
				effects[int(number(t, p.Payload))]++
			}
			return effects
		},
		Identities: func(t *testing.T) map[int]int { t.Helper(); return s.identities(t, identity) },
		Arrived: func(t *testing.T) []int {
			t.Helper()
			var order []int
			for _, p := range s.read(t) {
				order = append(order, int(number(t, p.Payload)))
			}
			return order
		},
	}
	if version == "5" {
		h.Mapped = s.mapped
	}
	return h
}

func (s *mqttSink) mapped(t *testing.T) (*sdk.Delivery, func(t *testing.T)) {
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
			"specversion": "1.0", "id": d.ID, "source": d.Source, "type": d.Type, "subject": "person/17", "partitionkey": "p:17", "unit": "7",
			"time": d.Time.UTC().Format(time.RFC3339Nano), "traceparent": traceParent, "number": "1",
		} {
			if value := mosquittotest.Property(got, name); value != want {
				t.Errorf("%s is %q, want %q", name, value, want)
			}
		}
		if p := got.Properties; string(p.CorrelationData) != "c-1" || p.ContentType != "application/json" || p.MessageExpiry == nil || *p.MessageExpiry > 3600 || p.PayloadFormat == nil || *p.PayloadFormat != 1 {
			t.Errorf("%s", p)
		}
		if got.Topic != s.name+"/arrest/made" || got.QoS != s.qos {
			t.Errorf("topic %s, QoS %d", got.Topic, got.QoS)
		}
	}
}

func TestMQTTSink(t *testing.T) {
	Sinks(t, func(t *testing.T) *SinkHarness { t.Helper(); return newMQTTSink(t, "5", 1) })
}

func TestMQTTSinkQoS2(t *testing.T) {
	Sinks(t, func(t *testing.T) *SinkHarness { t.Helper(); return newMQTTSink(t, "5", 2) })
}

func TestMQTT311Sink(t *testing.T) {
	Sinks(t, func(t *testing.T) *SinkHarness { t.Helper(); return newMQTTSink(t, "3.1.1", 1) })
}
