package mqtt

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func testReceiver(o sourceOptions) *receiver {
	if o.Prefetch == 0 {
		o.Prefetch = 2
	}
	return newReceiver(&contract.Config{Source: &contract.Source{EventType: "test", Format: sdk.FormatJSON}}, o)
}

func event(more ...pair) properties {
	return properties{user: append([]pair{{"specversion", "1.0"}, {"id", "7"}, {"source", "/doors"}, {"type", "test.door"}}, more...)}
}

func TestMessages(t *testing.T) {
	r := testReceiver(sourceOptions{IDProperty: "message-id"})
	for _, c := range []struct {
		name         string
		p            packet
		id, endpoint string
		headers      map[string]string
		err          string
	}{
		{"an event", packet{topic: "a/b", properties: event(pair{"subject", "17"}, pair{"message-id", "9"})}, "7", "a%2Fb/event/%2Fdoors", map[string]string{"topic": "a/b", "messageid": "9"}, ""},
		{"an event of another connector", packet{topic: "a", properties: properties{user: []pair{{"specversion", "1.0"}, {"id", "7"}, {"source", "/metip/x"}, {"type", "other"}}}}, "7", "a/event/%2Fmetip%2Fx", map[string]string{"topic": "a", "origin": "/metip/x", "messagetype": "other"}, ""},
		{"half an event", packet{topic: "a", properties: properties{user: []pair{{"specversion", "1.0"}, {"id", "7"}}}}, "", "", nil, "specversion 1.0, id, source and type"},
		{"an event with a line end", packet{topic: "a", properties: event(pair{"subject", "a\nb"})}, "", "", nil, "subject"},
		{"an id", packet{topic: "a/b", flags: 1, properties: properties{user: []pair{{"message-id", "9"}, {"Unit-ID", "7"}, {"id", "8"}, {"metip-error", "x"}, {"nöt", "x"}}}}, "9", "a%2Fb/id", map[string]string{"topic": "a/b", "messageid": "9", "unitid": "7", "retained": "true"}, ""},
		{"correlation that is no text", packet{topic: "a", properties: properties{correlation: []byte{0, 1}, responseTopic: "r", user: []pair{{"message-id", "1"}}}}, "1", "a/id", map[string]string{"topic": "a", "replyto": "r", "messageid": "1"}, ""},
		{"a large body", packet{topic: "a", skipped: 9 << 20}, "", "", nil, "bytes"},
	} {
		if c.p.skipped == 0 {
			c.p.body = []byte("{}")
		}
		m, err := r.message(&c.p)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || m.ID != c.id || m.Endpoint != c.endpoint {
			t.Errorf("%s: %+v, %v", c.name, m, err)
			continue
		}
		if diff := cmp.Diff(c.headers, m.Headers); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if _, err := r.message(&packet{topic: "a", body: []byte("{")}); err == nil {
		t.Error("it is no JSON")
	}
}

// A message without an id is known again by its packet id, as long as the broker says that it comes again and it is the same one.
func TestMemory(t *testing.T) {
	r := testReceiver(sourceOptions{})
	id := func(packetID uint16, flags byte, body string) string {
		m, err := r.message(&packet{topic: "a", id: packetID, flags: flags, body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	const again = 8 | 2
	first := id(1, 2, "1")
	if got := id(1, again, "1"); got != first {
		t.Error("it comes again as another one")
	}
	if got := id(1, again, "2"); got == first {
		t.Error("another body is another message")
	}
	second := id(1, 2, "1")
	if second == first {
		t.Error("what is not sent again is another message")
	}
	for n := range uint16(10) {
		id(2+n, 2, "1")
	}
	if len(r.memory.known) > r.memory.room || len(r.memory.order) != len(r.memory.known) {
		t.Errorf("it remembers %d messages", len(r.memory.known))
	}
	last := id(20, 2, "1")
	r.memory.forget()
	if id(20, again, "1") == last {
		t.Error("the session is another one")
	}
}

func TestContent(t *testing.T) {
	r := testReceiver(sourceOptions{Identity: identityContent})
	id := func(p packet) string {
		p.body = []byte("{}")
		m, err := r.message(&p)
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	first := id(packet{topic: "a", id: 1})
	if id(packet{topic: "a", id: 2, flags: 10}) != first {
		t.Error("it is the same message")
	}
	for _, p := range []packet{{topic: "b"}, {topic: "a", properties: properties{contentType: "x"}}, {topic: "a", properties: properties{user: []pair{{"x", "1"}}}}} {
		if id(p) == first {
			t.Errorf("%+v is another message", p)
		}
	}
}
