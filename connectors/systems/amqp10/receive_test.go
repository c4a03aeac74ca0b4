package amqp10

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func testReceiver(identity string) *receiver {
	config := &contract.Config{Connector: contract.Connector{Marking: "OFFICIAL"}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "custody.arrest"}}
	return newReceiver(config, sourceOptions{Address: "a/b", Identity: identity})
}

func events(prefix string, more ...any) map[string]any {
	h := map[string]any{prefix + "specversion": "1.0", prefix + "id": "e1", prefix + "source": "/court", prefix + "type": "custody.arrest.made"}
	for i := 0; i < len(more); i += 2 {
		h[more[i].(string)] = more[i+1]
	}
	return h
}

func TestMessage(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id := func(id any) *amqp.MessageProperties { return &amqp.MessageProperties{MessageID: id} }
	group := "g"
	for _, c := range []struct {
		name string
		in   amqp.Message
		want sdk.Message
	}{
		{"string", amqp.Message{Properties: id("1")}, sdk.Message{ID: "1", Endpoint: "a%2Fb/id"}},
		{"ulong", amqp.Message{Properties: id(uint64(7))}, sdk.Message{ID: "ulong:7", Endpoint: "a%2Fb/id"}},
		{"uuid", amqp.Message{Properties: id(amqp.UUID{1, 2, 15: 3})}, sdk.Message{ID: "uuid:01020000-0000-0000-0000-000000000003", Endpoint: "a%2Fb/id"}},
		{"binary", amqp.Message{Properties: id([]byte{1, 0xff})}, sdk.Message{ID: "binary:01ff", Endpoint: "a%2Fb/id"}},
		{"event", amqp.Message{Properties: &amqp.MessageProperties{MessageID: "1", GroupID: &group}, ApplicationProperties: events("cloudEvents:", "cloudEvents:time", at, "cloudEvents:unit", int32(7), "cloudEvents:subject", "s", "cloudEvents:marking", "OFFICIAL", "cloudEvents:partitionkey", "k")},
			sdk.Message{ID: "e1", Endpoint: "a%2Fb/event/%2Fcourt", Source: "/court", Type: "custody.arrest.made", Subject: "s", PartitionKey: "k", Time: at, Headers: map[string]string{"unit": "7"}}},
		{"event as JMS names it", amqp.Message{ApplicationProperties: events("cloudEvents_", "cloudEvents_key", amqp.UUID{})},
			sdk.Message{ID: "e1", Endpoint: "a%2Fb/event/%2Fcourt", Source: "/court", Type: "custody.arrest.made", Headers: map[string]string{"key": "00000000-0000-0000-0000-000000000000"}}},
		{"event of another connector", amqp.Message{ApplicationProperties: events("cloudEvents:", "cloudEvents:source", "/metip/ns/x")},
			sdk.Message{ID: "e1", Endpoint: "a%2Fb/event/%2Fmetip%2Fns%2Fx", Type: "custody.arrest.made", Headers: map[string]string{"origin": "/metip/ns/x"}}},
		{"group and trace", amqp.Message{Properties: &amqp.MessageProperties{MessageID: "1", GroupID: &group, CorrelationID: []byte{9}}, ApplicationProperties: map[string]any{
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "label": "no", "metip-error": "no", "list": []any{1}, "a-b": "2", "A_B": "1", "symbol": amqp.Symbol("s"),
		}}, sdk.Message{ID: "1", Endpoint: "a%2Fb/id", PartitionKey: "g", Headers: map[string]string{
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "correlationid": "binary:09", "ab": "1", "symbol": "s",
		}}},
	} {
		c.in.Data = [][]byte{[]byte(`{`), []byte(`}`)}
		c.want.ContentType, c.want.Data = "application/json", []byte(`{}`)
		got, err := testReceiver(identityDelivery).message(&c.in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, *got, c.want)
		}
	}
}

func TestMessageRefused(t *testing.T) {
	data := [][]byte{[]byte(`{}`)}
	for want, in := range map[string]amqp.Message{
		"not JSON":                       {Data: [][]byte{[]byte("x")}},
		"amqp-sequence":                  {Sequence: [][]any{{"a"}}},
		"the type map[string]any":        {Value: map[string]any{"a": 1}},
		"the type int64":                 {Value: int64(4)},
		"and the bus takes":              {Data: [][]byte{bytes.Repeat([]byte("1"), contract.MaxMessageSize), []byte("1")}},
		"not each of specversion":        {Data: data, ApplicationProperties: map[string]any{"cloudEvents_id": "1"}},
		`"cloudEvents:x" is no text`:     {Data: data, ApplicationProperties: events("cloudEvents:", "cloudEvents:x", []byte("x"))},
		"takes messages marked":          {Data: data, ApplicationProperties: events("cloudEvents:", "cloudEvents:marking", "SECRET")},
		"is no text of UTF-8 without co": {Data: data, ApplicationProperties: events("cloudEvents:", "cloudEvents:x", "a\nb")},
	} {
		if _, err := testReceiver(identityDelivery).message(&in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestBodies(t *testing.T) {
	for _, in := range []amqp.Message{{Data: [][]byte{[]byte(`{"a":1}`)}}, {Data: [][]byte{[]byte(`{"a"`), []byte(`:1}`)}}, {Value: `{"a":1}`}, {Value: []byte(`{"a":1}`)}} {
		m, err := testReceiver(identityDelivery).message(&in)
		if err != nil || string(m.Data) != `{"a":1}` || size(&in) != len(m.Data) {
			t.Errorf("%v %v", m, err)
		}
	}
}

func TestIdentityByContent(t *testing.T) {
	r := testReceiver(identityContent)
	ids := map[string]int{}
	for i, in := range []amqp.Message{
		{}, {Header: &amqp.MessageHeader{DeliveryCount: 3}, Annotations: amqp.Annotations{"x-opt-sequence-number": 3}},
		{ApplicationProperties: map[string]any{"a": "1"}}, {ApplicationProperties: map[string]any{"a": int64(1), "b": ""}}, {Properties: &amqp.MessageProperties{CorrelationID: uint64(1)}},
		{Properties: &amqp.MessageProperties{CorrelationID: "1"}},
	} {
		in.Data = [][]byte{[]byte(`{}`)}
		m, err := r.message(&in)
		if err != nil || m.Endpoint != "a%2Fb/content" {
			t.Fatal(m, err)
		}
		if other, there := ids[m.ID]; there && (other != 0 || i != 1) {
			t.Errorf("%d and %d are alike", other, i)
		} else if i == 1 && !there {
			t.Error("what the broker says of a delivery makes another message of it")
		}
		ids[m.ID] = i
		if i == 1 {
			ids[m.ID] = 0
		}
	}
}
