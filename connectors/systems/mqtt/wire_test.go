package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"
)

func read(raw []byte, maxBody int, five bool) (*packet, error) {
	return readPacket(bufio.NewReaderSize(bytes.NewReader(raw), 16), maxBody, five)
}

func written(t *testing.T, p io.WriterTo) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := p.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pointer[T any](v T) *T { return &v }

// What another codec writes is read.
func TestPacketsOfAnotherCodec(t *testing.T) {
	none := properties{maximumQoS: 2, keepAlive: -1}
	with := func(change func(*properties)) properties {
		p := none
		change(&p)
		return p
	}
	for _, c := range []struct {
		name string
		from io.WriterTo
		want packet
	}{
		{"a message", &packets.Publish{
			Topic: "a/b", QoS: 1, PacketID: 7, Duplicate: true, Retain: true, Payload: []byte("body"),
			Properties: &packets.Properties{
				ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte("c"), PayloadFormat: pointer(byte(1)), MessageExpiry: pointer(uint32(9)),
				SubscriptionIdentifier: pointer(300), User: []packets.User{{Key: "x", Value: "1"}, {Key: "x", Value: "2"}},
			},
		}, packet{kind: kindPublish, flags: 0x0b, id: 7, topic: "a/b", body: []byte("body"), properties: with(func(p *properties) {
			p.contentType, p.responseTopic, p.correlation, p.text, p.expiry, p.user = "text/plain", "r", []byte("c"), true, 9, []pair{{"x", "1"}, {"x", "2"}}
		})}},
		{"a connection that is taken", &packets.Connack{SessionPresent: true, Properties: &packets.Properties{
			ReceiveMaximum: pointer(uint16(20)), MaximumQOS: pointer(byte(1)), RetainAvailable: pointer(byte(0)), MaximumPacketSize: pointer(uint32(1000)), SharedSubAvailable: pointer(byte(0)),
			WildcardSubAvailable: pointer(byte(0)), ServerKeepAlive: pointer(uint16(5)), AssignedClientID: "x", TopicAliasMaximum: pointer(uint16(10)), SessionExpiryInterval: pointer(uint32(1)),
		}}, packet{kind: kindConnack, present: true, properties: with(func(p *properties) {
			p.receiveMaximum, p.maximumQoS, p.noRetain, p.maximumPacketSize, p.noShared, p.noWildcard, p.keepAlive = 20, 1, true, 1000, true, true, 5
		})}},
		{"one that is not", &packets.Connack{ReasonCode: 0x87, Properties: &packets.Properties{ReasonString: "no"}}, packet{kind: kindConnack, code: 0x87, properties: with(func(p *properties) { p.reason = "no" })}},
		{"a subscription", &packets.Suback{PacketID: 1, Reasons: []byte{1, 0x87}, Properties: &packets.Properties{}}, packet{kind: kindSuback, id: 1, codes: []byte{1, 0x87}, properties: none}},
		{"an acknowledgement", &packets.Puback{PacketID: 9, ReasonCode: 0x97, Properties: &packets.Properties{ReasonString: "full"}}, packet{kind: kindPuback, id: 9, code: 0x97, properties: with(func(p *properties) { p.reason = "full" })}},
		{"a release", &packets.Pubrel{PacketID: 9, Properties: &packets.Properties{}}, packet{kind: kindPubrel, flags: 2, id: 9, properties: none}},
		{"an answer", &packets.Pingresp{}, packet{kind: kindPingresp, properties: none}},
		{"the end", &packets.Disconnect{ReasonCode: 0x8e, Properties: &packets.Properties{}}, packet{kind: kindDisconnect, code: 0x8e, properties: none}},
	} {
		got, err := read(written(t, c.from), 100, true)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, *got, cmp.AllowUnexported(packet{}, properties{}, pair{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// What is written, another codec reads.
func TestPacketsForAnotherCodec(t *testing.T) {
	w := &sender{link: &link{five: true, accepted: &packet{}}}
	p := &publication{topic: "a/b", qos: 2, retain: true, body: []byte(strings.Repeat("x", 300)), properties: properties{
		contentType: "text/plain", responseTopic: "r", correlation: []byte("c"), text: true, expiry: 60, user: []pair{{"id", "1"}, {"ä", "ö"}},
	}}
	raw, err := w.encode(nil, p, 513)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []byte{kindPuback, kindPubrec, kindPubrel, kindPubcomp} {
		raw = appendAck(raw, kind, 513)
	}
	r := bytes.NewReader(raw)
	got, err := packets.ReadPacket(r)
	if err != nil {
		t.Fatal(err)
	}
	want := &packets.Publish{Topic: "a/b", QoS: 2, Retain: true, PacketID: 513, Payload: p.body, Properties: &packets.Properties{
		ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte("c"), PayloadFormat: pointer(byte(1)), MessageExpiry: pointer(uint32(60)),
		User: []packets.User{{Key: "id", Value: "1"}, {Key: "ä", Value: "ö"}},
	}}
	if diff := cmp.Diff(want, got.Content); diff != "" {
		t.Error(diff)
	}
	for _, kind := range []byte{kindPuback, kindPubrec, kindPubrel, kindPubcomp} {
		if got, err := packets.ReadPacket(r); err != nil || got.Type != kind || got.PacketID() != 513 {
			t.Errorf("%+v, %v, want kind %d", got, err, kind)
		}
	}
	for _, bad := range []string{"a\x00b", "\xff", strings.Repeat("x", maxText+1)} {
		for _, p := range []*publication{{topic: "a", properties: properties{user: []pair{{"x", bad}}}}, {topic: "a", properties: properties{user: []pair{{bad, "x"}}}}, {topic: "a", properties: properties{contentType: bad}}} {
			if _, err := w.encode(nil, p, 1); err == nil {
				t.Errorf("%.10q is carried", bad)
			}
		}
	}
	w.link.accepted.maximumPacketSize = 100
	if _, err := w.encode(nil, p, 1); err == nil {
		t.Error("it is larger than the server takes")
	}
}

// What is too large is read over: the next packet is found.
func TestLargeBodies(t *testing.T) {
	for _, five := range []bool{true, false} {
		for _, size := range []int{101, maxHead + 1000, 1 << 20} {
			head := append(appendText(nil, "a/b"), 0, 9)
			if five {
				head = append(head, 0)
			}
			raw := appendPacket(nil, kindPublish, 2, head, make([]byte, size))
			r := bufio.NewReader(bytes.NewReader(appendAck(raw, kindPuback, 3)))
			p, err := readPacket(r, 100, five)
			if err != nil || p.skipped < size || p.skipped > size+1 || p.topic != "a/b" || p.id != 9 || p.body != nil {
				t.Errorf("%d: %+v, %v", size, p, err)
			}
			if p, err := readPacket(r, 100, five); err != nil || p.kind != kindPuback || p.id != 3 {
				t.Errorf("%d: %+v, %v", size, p, err)
			}
		}
	}
}

func TestPacketsThatAreNone(t *testing.T) {
	for name, raw := range map[string]string{
		"HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat("x", 200), "a length without end": "\x30\xff\xff\xff\xff\x01", "a topic that goes on": "\x30\x03\x00\x09a", "a packet id of 0": "\x32\x05\x00\x01a\x00\x00\x00",
		"QoS 3": "\x36\x06\x00\x01a\x00\x01\x00", "properties that go on": "\x32\x06\x00\x01a\x00\x01\x09", "an unknown property": "\x32\x08\x00\x01a\x00\x01\x02\x7f\x01", "a long head": "\x90\xff\xff\xff\x7f",
		"a packet of clients": "\x10\x00",
	} {
		if p, err := read([]byte(raw), 100, true); !errors.Is(err, errPacket) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for _, raw := range []string{"\x30", "\x30\x80", "\x30\x05\x00", "\x20\x02\x00"} {
		if p, err := read([]byte(raw), 100, true); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %+v, %v", raw, p, err)
		}
	}
}

func FuzzPackets(f *testing.F) {
	f.Add([]byte("\x32\x06\x00\x01a\x00\x01\x00"), true)
	f.Add([]byte("\x20\x03\x00\x00\x00"), true)
	f.Fuzz(func(_ *testing.T, raw []byte, five bool) { _, _ = read(raw, 100, five) })
}
