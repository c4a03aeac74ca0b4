package rabbitmq

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func testReceiver(identity string) *receiver {
	config := &contract.Config{Connector: contract.Connector{Marking: "OFFICIAL"}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "custody.arrest"}}
	return newReceiver(config, sourceOptions{Queue: "a/b", Identity: identity, Connection: connectionOptions{VirtualHost: "/"}})
}

func events(more ...string) amqp.Table {
	h := amqp.Table{"cloudEvents:specversion": "1.0", "cloudEvents:id": "e1", "cloudEvents:source": "/court", "cloudEvents:type": "custody.arrest.made"}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

func TestMessageOfADelivery(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name     string
		delivery amqp.Delivery
		want     sdk.Message
	}{
		{"bare", amqp.Delivery{MessageId: "1", Body: []byte(`1`)}, sdk.Message{ID: "1", Endpoint: "%2F/a%2Fb/id", ContentType: "application/json"}},
		{"event", amqp.Delivery{MessageId: "1", Type: "custody.arrest.made", Headers: events("cloudEvents:time", "2026-01-02T03:04:05Z", "cloudEvents_unit", "7", "cloudEvents:subject", "s", "cloudEvents:marking", "OFFICIAL", "cloudEvents:partitionkey", "k")},
			sdk.Message{ID: "e1", Endpoint: "%2F/a%2Fb/event/%2Fcourt", Source: "/court", Type: "custody.arrest.made", Subject: "s", PartitionKey: "k", Time: at, ContentType: "application/json", Headers: map[string]string{"unit": "7"}}},
		{"event of another connector", amqp.Delivery{Headers: events("cloudEvents:source", "/metip/ns/x")},
			sdk.Message{ID: "e1", Endpoint: "%2F/a%2Fb/event/%2Fmetip%2Fns%2Fx", Type: "custody.arrest.made", ContentType: "application/json", Headers: map[string]string{"origin": "/metip/ns/x"}}},
		{"event of a type that is not this connector's", amqp.Delivery{Type: "custody.arrest.x", Headers: events("cloudEvents:type", "court.hearing")},
			sdk.Message{ID: "e1", Endpoint: "%2F/a%2Fb/event/%2Fcourt", Source: "/court", ContentType: "application/json", Headers: map[string]string{"messagetype": "court.hearing"}}},
		{"type below", amqp.Delivery{MessageId: "1", Type: "custody.arrest.x", Timestamp: at}, sdk.Message{ID: "1", Endpoint: "%2F/a%2Fb/id", Type: "custody.arrest.x", Time: at, ContentType: "application/json"}},
		{"type elsewhere", amqp.Delivery{MessageId: "1", Type: "custody.arrest."}, sdk.Message{ID: "1", Endpoint: "%2F/a%2Fb/id", ContentType: "application/json", Headers: map[string]string{"messagetype": "custody.arrest."}}},
		{"headers", amqp.Delivery{MessageId: "1", Exchange: "e", RoutingKey: "r", UserId: "u", CorrelationId: "bad\n", ContentType: "text/x\n", Headers: amqp.Table{
			"a-b": "2", "A_B": "1", "x-death": "no", "type": "no", "Trace/Parent": "no", "list": []any{1}, "n": int32(4), "f": 1.5, "ok": true, "at": at, "bytes": []byte("no"), "traceparent": "bad", "tracestate": "no",
		}}, sdk.Message{ID: "1", Endpoint: "%2F/a%2Fb/id", ContentType: "application/json", Headers: map[string]string{
			"ab": "1", "exchange": "e", "routingkey": "r", "userid": "u", "n": "4", "f": "1.5", "ok": "true", "at": "2026-01-02T03:04:05Z",
		}}},
	} {
		if c.delivery.Body == nil {
			c.delivery.Body = []byte(`{}`)
		}
		got, err := testReceiver(identityDelivery).message(&c.delivery)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got.Data = nil
		if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%s: %+v\nwant %+v", c.name, *got, c.want)
		}
	}
}

func TestDeliveryThatTheBusCannotTake(t *testing.T) {
	for want, d := range map[string]amqp.Delivery{
		"not JSON":             {Body: []byte(`{`)},
		"bytes, and the bus":   {Body: []byte(strings.Repeat(" ", contract.MaxMessageSize) + "1")},
		"not each of":          {Body: []byte(`1`), Headers: amqp.Table{"cloudEvents:id": "1"}},
		"specversion 1.0":      {Body: []byte(`1`), Headers: events("cloudEvents:specversion", "0.3")},
		"no time as":           {Body: []byte(`1`), Headers: events("cloudEvents:time", "today")},
		"marked":               {Body: []byte(`1`), Headers: events("cloudEvents:marking", "SECRET")},
		"control characters":   {Body: []byte(`1`), Headers: events("cloudEvents:unit", "a\nb")},
		"longer than 512":      {Body: []byte(`1`), Headers: events("cloudEvents:id", strings.Repeat("x", 600))},
		"no text of UTF-8 wit": {Body: []byte(`1`), Headers: amqp.Table{"cloudEvents:id": []byte("1")}},
	} {
		if m, err := testReceiver(identityDelivery).message(&d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v, want %q", m, err, want)
		}
	}
}

// A message without an id is known again by what it holds, and not by how often it was delivered; or not at all.
func TestIdentity(t *testing.T) {
	fresh := func() amqp.Delivery {
		return amqp.Delivery{Exchange: "e", RoutingKey: "r", Body: []byte(`{"a":1}`), Headers: amqp.Table{"h": "1", "t": amqp.Table{"x": int32(1), "y": int32(2)}}, Timestamp: time.Unix(17, 0)}
	}
	id := func(r *receiver, d amqp.Delivery) string {
		m, err := r.message(&d)
		if err != nil {
			t.Fatal(err)
		}
		return m.Endpoint + " " + m.ID
	}
	content := testReceiver(identityContent)
	first := id(content, fresh())
	again := fresh()
	again.Redelivered, again.DeliveryTag, again.Headers["x-delivery-count"] = true, 9, int64(1)
	if got := id(content, again); got != first {
		t.Errorf("a redelivery is %s, and was %s", got, first)
	}
	for _, change := range []func(*amqp.Delivery){
		func(d *amqp.Delivery) { d.Body = []byte(`{"a":2}`) }, func(d *amqp.Delivery) { d.Headers["h"] = "2" }, func(d *amqp.Delivery) { d.Timestamp = time.Unix(18, 0) },
		func(d *amqp.Delivery) { d.RoutingKey = "s" }, func(d *amqp.Delivery) { d.CorrelationId = "1" },
	} {
		d := fresh()
		change(&d)
		if got := id(content, d); got == first {
			t.Errorf("%+v has the id of another", d)
		}
	}
	each := testReceiver(identityDelivery)
	if a, b := id(each, fresh()), id(each, fresh()); a == b {
		t.Error("two deliveries have one id")
	}
	long := id(each, amqp.Delivery{Body: []byte(`1`), Headers: events("cloudEvents:source", "/"+strings.Repeat("x", 900))})
	if len(long) > 400 {
		t.Errorf("the id %s is long", long)
	}
}

func TestPublicationID(t *testing.T) {
	d := fakes.Delivery("1", "{}")
	if got := publicationID(d); got != d.Durable+"/"+d.MessageID {
		t.Error(got)
	}
	d.MessageID = strings.Repeat("x", 300)
	if a := publicationID(d); len(a) != 64 || a != publicationID(d) {
		t.Error(a)
	}
}
