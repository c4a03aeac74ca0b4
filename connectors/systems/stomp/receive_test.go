package stomp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

func testReceiver(content bool) *receiver {
	return &receiver{Receiver: binding.Receiver{EventType: "custody.arrest", Marking: "OFFICIAL"}, format: sdk.FormatJSON, endpoint: "%2Fqueue%2Fa", content: content}
}

func message(body string, headers ...string) *frame {
	f := newFrame(cmdMessage, headers...)
	f.body = []byte(body)
	return f
}

func TestMessageOfAFrame(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event := []string{"ce_specversion", "1.0", "ce_id", "e1", "ce_source", "/court", "ce_type", "custody.arrest.made"}
	for _, c := range []struct {
		name  string
		frame *frame
		want  sdk.Message
	}{
		{"of JMS", message("{}", "message-id", "ID:host-1:2:3", "timestamp", fmt.Sprint(at.UnixMilli()), "destination", "/queue/a", "redelivered", "true", "priority", "4", "JMSXGroupID", "g"),
			sdk.Message{ID: "ID:host-1:2:3", Endpoint: "%2Fqueue%2Fa/id", Time: at, ContentType: "application/json", Headers: map[string]string{"destination": "/queue/a"}}},
		{"of RabbitMQ", message("{}", "message-id", "T_0@@session@@1", "amqp-message-id", "m-1", "content-type", "text/json", "Unit-ID", "7", "type", "t", "reply-to", "r", "correlation-id", "c"),
			sdk.Message{ID: "m-1", Endpoint: "%2Fqueue%2Fa/id", ContentType: "text/json", Headers: map[string]string{"unitid": "7", "jmstype": "t", "replyto": "r", "correlationid": "c"}}},
		{"an event", message("{}", append(event, "ce_time", "2026-01-02T03:04:05Z", "ce_unit", "7", "ce_subject", "s", "ce_partitionkey", "k", "ce_marking", "OFFICIAL", "message-id", "ID:1")...),
			sdk.Message{ID: "e1", Endpoint: "%2Fqueue%2Fa/event/%2Fcourt", Source: "/court", Type: "custody.arrest.made", Subject: "s", PartitionKey: "k", Time: at, ContentType: "application/json", Headers: map[string]string{"unit": "7"}}},
		{"an event of another connector, of another type", message("{}", "cloudEvents:specversion", "1.0", "cloudEvents_id", "e1", "ce_source", "/metip/ns/x", "ce_type", "other"),
			sdk.Message{ID: "e1", Endpoint: "%2Fqueue%2Fa/event/%2Fmetip%2Fns%2Fx", ContentType: "application/json", Headers: map[string]string{"origin": "/metip/ns/x", "messagetype": "other"}}},
		{"a trace", message("{}", "message-id", "ID:1", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate", "a=b"),
			sdk.Message{ID: "ID:1", Endpoint: "%2Fqueue%2Fa/id", ContentType: "application/json", Headers: map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b"}}},
	} {
		got, err := testReceiver(false).message(c.frame)
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

func TestFrameThatTheBusCannotTake(t *testing.T) {
	for want, f := range map[string]*frame{
		"not JSON":           message("{"),
		"and the bus takes":  {command: cmdMessage, skipped: contract.MaxMessageSize + 1},
		"not each of":        message("{}", "ce_id", "1"),
		"marked":             message("{}", "ce_marking", "SECRET"),
		"control characters": message("{}", "ce_unit", "a\nb"),
		"no time as":         message("{}", "ce_time", "today"),
	} {
		if m, err := testReceiver(false).message(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v, want %q", m, err, want)
		}
	}
}

// A message without an id is known again by what it holds, and not by how often it was delivered; or not at all.
func TestIdentity(t *testing.T) {
	id := func(content bool, body string, headers ...string) string {
		m, err := testReceiver(content).message(message(body, append(headers, "message-id", "T_0@@s@@1")...))
		if err != nil {
			t.Fatal(err)
		}
		return m.Endpoint + " " + m.ID
	}
	first := id(true, "{}", "a", "1", "ack", "x", "redelivered", "false")
	if again := id(true, "{}", "redelivered", "true", "ack", "y", "a", "1"); again != first {
		t.Errorf("%s, and was %s", again, first)
	}
	for _, other := range []string{id(true, "[]", "a", "1"), id(true, "{}", "a", "2"), id(true, "{}", "b", "1"), id(true, "{}")} {
		if other == first {
			t.Errorf("another message has the id %s", other)
		}
	}
	if once, again := id(false, "{}"), id(false, "{}"); once == again {
		t.Error("two deliveries have one id")
	}
}
