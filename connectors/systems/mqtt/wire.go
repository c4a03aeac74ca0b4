package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Kinds of packets.
const (
	kindConnect    = 1
	kindConnack    = 2
	kindPublish    = 3
	kindPuback     = 4
	kindPubrec     = 5
	kindPubrel     = 6
	kindPubcomp    = 7
	kindSubscribe  = 8
	kindSuback     = 9
	kindPingreq    = 12
	kindPingresp   = 13
	kindDisconnect = 14
)

const (
	// maxHead is what a packet may hold besides a body: a topic and properties.
	maxHead = 256 << 10
	// maxText is the longest text or value of the protocol.
	maxText = 65535
)

// errPacket is a packet that is none.
var errPacket = errors.New("the server sends what is no MQTT")

// pair is a user property.
type pair struct{ name, value string }

// properties of packets of MQTT 5; those that nobody here asks for are left out.
type properties struct {
	contentType, responseTopic string
	correlation                []byte
	text                       bool
	expiry                     uint32
	user                       []pair

	reason            string
	receiveMaximum    uint16
	maximumQoS        byte
	noRetain          bool
	maximumPacketSize uint32
	noWildcard        bool
	noShared          bool
	keepAlive         int // -1: the server does not say
}

// packet that was read.
type packet struct {
	kind  byte
	flags byte
	// id of the packet; code is its reason, or in a CONNACK of 3.1.1 the return code.
	id   uint16
	code byte
	// present: the server knows the session (CONNACK).
	present bool
	// codes of a SUBACK.
	codes []byte
	topic string
	body  []byte
	// skipped is the size of a message whose body was not taken in.
	skipped int
	properties
}

func (p *packet) qos() byte       { return p.flags >> 1 & 3 }
func (p *packet) duplicate() bool { return p.flags&8 != 0 }
func (p *packet) retained() bool  { return p.flags&1 != 0 }

// readPacket whose body, if it is a message, has at most so many bytes; that of a larger one is passed over.
func readPacket(r *bufio.Reader, maxBody int, five bool) (*packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	length, err := readLength(r)
	if err != nil {
		return nil, err
	}
	p := &packet{kind: first >> 4, flags: first & 15, properties: properties{maximumQoS: 2, keepAlive: -1}}
	if p.kind == kindPublish && length > maxBody+maxHead {
		return p, p.skip(r, length)
	}
	if p.kind != kindPublish && length > maxHead {
		return nil, errPacket
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, unexpected(err)
	}
	c := cursor{b: raw}
	p.parse(&c, five)
	if c.bad {
		return nil, errPacket
	}
	if len(p.body) > maxBody {
		p.skipped, p.body = len(p.body), nil
	}
	return p, nil
}

func readLength(r *bufio.Reader) (length int, err error) {
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		length |= int(b&127) << shift
		if b < 128 {
			return length, nil
		}
	}
	return 0, errPacket
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// skip a message, but for its topic and id.
func (p *packet) skip(r *bufio.Reader, length int) error {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return unexpected(err)
	}
	raw := make([]byte, int(binary.BigEndian.Uint16(size[:]))+2)
	if _, err := io.ReadFull(r, raw); err != nil {
		return unexpected(err)
	}
	p.topic = string(raw[:len(raw)-2])
	p.id = binary.BigEndian.Uint16(raw[len(raw)-2:])
	p.skipped = length - 2 - len(raw)
	if p.qos() == 0 { // what was read for the id is the body's
		p.id = 0
	}
	_, err := r.Discard(p.skipped)
	return unexpected(err)
}

func (p *packet) parse(c *cursor, five bool) {
	switch p.kind {
	case kindConnack:
		p.present = c.byte()&1 != 0
		p.code = c.byte()
		if len(c.b) > 0 { // a server of 3.1.1 says so without properties
			c.properties(&p.properties)
		}
	case kindPublish:
		p.topic = string(c.binary())
		if p.qos() > 0 {
			if p.id = c.uint16(); p.id == 0 || p.qos() == 3 {
				c.bad = true
			}
		}
		if five {
			c.properties(&p.properties)
		}
		p.body = c.b
	case kindPuback, kindPubrec, kindPubrel, kindPubcomp:
		p.id = c.uint16()
		if five && len(c.b) > 0 {
			p.code = c.byte()
			if len(c.b) > 0 {
				c.properties(&p.properties)
			}
		}
	case kindSuback:
		p.id = c.uint16()
		if five {
			c.properties(&p.properties)
		}
		p.codes = c.b
	case kindDisconnect:
		if five && len(c.b) > 0 {
			p.code = c.byte()
			if len(c.b) > 0 {
				c.properties(&p.properties)
			}
		}
	case kindPingresp:
	default:
		c.bad = true
	}
}

// cursor reads a packet; bad says that there was less than asked for.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) binary() []byte { return c.take(int(c.uint16())) }

func (c *cursor) text() string { return string(c.binary()) }

func (c *cursor) length() (n int) {
	for shift := 0; shift < 28; shift += 7 {
		b := c.byte()
		n |= int(b&127) << shift
		if b < 128 {
			return n
		}
	}
	c.bad = true
	return 0
}

func (c *cursor) properties(p *properties) {
	inner := cursor{b: c.take(c.length())}
	for len(inner.b) > 0 && !inner.bad {
		inner.property(p)
	}
	c.bad = c.bad || inner.bad
}

func (c *cursor) property(p *properties) {
	switch c.byte() {
	case 0x01:
		p.text = c.byte() == 1
	case 0x02:
		p.expiry = c.uint32()
	case 0x03:
		p.contentType = c.text()
	case 0x08:
		p.responseTopic = c.text()
	case 0x09:
		p.correlation = c.binary()
	case 0x13:
		p.keepAlive = int(c.uint16())
	case 0x1f:
		p.reason = c.text()
	case 0x21:
		p.receiveMaximum = c.uint16()
	case 0x24:
		p.maximumQoS = c.byte()
	case 0x25:
		p.noRetain = c.byte() == 0
	case 0x26:
		name := c.text()
		p.user = append(p.user, pair{name, c.text()})
	case 0x27:
		p.maximumPacketSize = c.uint32()
	case 0x28:
		p.noWildcard = c.byte() == 0
	case 0x2a:
		p.noShared = c.byte() == 0
	case 0x0b: // subscription identifier
		c.length()
	case 0x11, 0x18: // session expiry, will delay
		c.uint32()
	case 0x12, 0x15, 0x16, 0x1a, 0x1c: // names that the server gives
		c.binary()
	case 0x17, 0x19, 0x29:
		c.byte()
	case 0x22, 0x23: // topic aliases, which are not asked for
		c.uint16()
	default:
		c.bad = true
	}
}

func appendLength(out []byte, n int) []byte {
	for n >= 128 {
		out = append(out, byte(n)|128)
		n >>= 7
	}
	return append(out, byte(n))
}

func appendText[T string | []byte](out []byte, text T) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(text)))
	return append(out, text...)
}

// appendPacket with this head, which is all but the body.
func appendPacket(out []byte, kind, flags byte, head, body []byte) []byte {
	out = append(out, kind<<4|flags)
	out = appendLength(out, len(head)+len(body))
	out = append(out, head...)
	return append(out, body...)
}

// appendAck of a packet.
func appendAck(out []byte, kind byte, id uint16) []byte {
	flags := byte(0)
	if kind == kindPubrel {
		flags = 2
	}
	return append(out, kind<<4|flags, 2, byte(id>>8), byte(id))
}

// carried tells whether a text can be one of the protocol: a server ends the connection over one that cannot.
func carried(s string) bool {
	return len(s) <= maxText && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// encode the properties of a message.
func (p *properties) encode() ([]byte, error) {
	var out []byte
	if p.text {
		out = append(out, 0x01, 1)
	}
	if p.expiry > 0 {
		out = binary.BigEndian.AppendUint32(append(out, 0x02), p.expiry)
	}
	if len(p.correlation) > maxText {
		return nil, fmt.Errorf("the correlation data are longer than %d bytes", maxText)
	}
	if len(p.correlation) > 0 {
		out = appendText(append(out, 0x09), p.correlation)
	}
	for _, t := range []struct {
		code        byte
		name, value string
	}{{0x03, "content type", p.contentType}, {0x08, "response topic", p.responseTopic}} {
		if !carried(t.value) {
			return nil, fmt.Errorf("the %s is none that MQTT carries", t.name)
		}
		if t.value != "" {
			out = appendText(append(out, t.code), t.value)
		}
	}
	for _, u := range p.user {
		if !carried(u.name) || !carried(u.value) {
			return nil, fmt.Errorf("user property %.60q is not UTF-8, holds a zero, or is longer than %d bytes", u.name, maxText)
		}
		out = appendText(appendText(append(out, 0x26), u.name), u.value)
	}
	return append(appendLength(nil, len(out)), out...), nil
}
