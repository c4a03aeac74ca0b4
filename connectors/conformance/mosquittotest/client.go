package mosquittotest

import (
	"fmt"
	"math"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// Connection of the administrator, or of another: MQTT 5 as paho.golang encodes it.
type Connection struct {
	conn net.Conn
	id   uint16
}

// Connect the administrator. With session, what was subscribed under this client id is there again, with its messages.
func (s *Server) Connect(t testing.TB, client string, session bool) *Connection {
	t.Helper()
	c, err := s.connect(Administrator, Password, client, session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

func (s *Server) connect(user, password, client string, session bool) (*Connection, error) {
	conn, err := net.DialTimeout("tcp", address(s.Host, s.PlainPort), 5*time.Second)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(within))
	expiry, receive := uint32(0), uint16(math.MaxUint16)
	if session {
		expiry = math.MaxUint32
	}
	connect := &packets.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: client, CleanStart: !session, KeepAlive: 600, UsernameFlag: true, Username: user, PasswordFlag: true, Password: []byte(password),
		Properties: &packets.Properties{SessionExpiryInterval: &expiry, ReceiveMaximum: &receive},
	}
	_, err = connect.WriteTo(conn)
	var answer *packets.ControlPacket
	if err == nil {
		answer, err = packets.ReadPacket(conn)
	}
	if err == nil {
		if connack, ok := answer.Content.(*packets.Connack); !ok || connack.ReasonCode != 0 {
			err = fmt.Errorf("the broker answers %v", answer.Content)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Connection{conn: conn}, nil
}

// Close the connection in order.
func (c *Connection) Close() error {
	_, err := (&packets.Disconnect{Properties: &packets.Properties{}}).WriteTo(c.conn)
	if err == nil {
		_, _ = packets.ReadPacket(c.conn) // until the broker has closed it
	}
	return c.conn.Close()
}

func (c *Connection) next() uint16 {
	if c.id++; c.id == 0 {
		c.id = 1
	}
	return c.id
}

func (c *Connection) write(t testing.TB, p packets.Packet) {
	t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(within))
	if _, err := p.WriteTo(c.conn); err != nil {
		t.Fatal(err)
	}
}

func (c *Connection) read(t testing.TB) packets.Packet {
	t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(within))
	p, err := packets.ReadPacket(c.conn)
	if err != nil {
		t.Fatal(err)
	}
	return p.Content
}

// Subscribe to a filter of topics.
func (c *Connection) Subscribe(t testing.TB, filter string, qos byte) {
	t.Helper()
	c.write(t, &packets.Subscribe{Properties: &packets.Properties{}, PacketID: c.next(), Subscriptions: []packets.SubOptions{{Topic: filter, QoS: qos}}})
	if ack, ok := c.read(t).(*packets.Suback); !ok || len(ack.Reasons) != 1 || ack.Reasons[0] != qos {
		t.Fatalf("the broker does not take the subscription to %s: %v", filter, ack)
	}
}

// Publish messages; the broker has them when it returns.
func (c *Connection) Publish(t testing.TB, messages ...*packets.Publish) {
	t.Helper()
	const window = 10
	for len(messages) > 0 {
		n := min(window, len(messages))
		for _, m := range messages[:n] {
			if m.Properties == nil {
				m.Properties = &packets.Properties{}
			}
			m.PacketID = c.next()
			c.write(t, m)
		}
		for done := 0; done < n; {
			switch p := c.read(t).(type) {
			case *packets.Puback:
				if done++; p.ReasonCode >= 0x80 {
					t.Fatalf("the broker does not take a message: %v", p)
				}
			case *packets.Pubrec:
				if p.ReasonCode >= 0x80 {
					t.Fatalf("the broker does not take a message: %v", p)
				}
				c.write(t, &packets.Pubrel{Properties: &packets.Properties{}, PacketID: p.PacketID})
			case *packets.Pubcomp:
				done++
			}
		}
		messages = messages[n:]
	}
}

// Receive what the broker has for the session, and take it, unless it is to be left there.
func (c *Connection) Receive(t testing.TB, take bool) []*packets.Publish {
	t.Helper()
	var all []*packets.Publish
	for quiet := 0; quiet < 2; {
		c.write(t, &packets.Pingreq{})
		before := len(all)
		for answered := false; !answered; {
			switch p := c.read(t).(type) {
			case *packets.Publish:
				all = append(all, p)
				switch {
				case take && p.QoS == 1:
					c.write(t, &packets.Puback{Properties: &packets.Properties{}, PacketID: p.PacketID})
				case take && p.QoS == 2:
					c.write(t, &packets.Pubrec{Properties: &packets.Properties{}, PacketID: p.PacketID})
				}
			case *packets.Pubrel:
				c.write(t, &packets.Pubcomp{Properties: &packets.Properties{}, PacketID: p.PacketID})
			case *packets.Pingresp:
				answered = true
			}
		}
		if quiet++; len(all) > before {
			quiet = 0
		}
	}
	return all
}

// Property of a message: the first user property of this name.
func Property(p *packets.Publish, name string) string {
	for _, u := range p.Properties.User {
		if u.Key == name {
			return u.Value
		}
	}
	return ""
}

// Tell the broker messages of QoS 0, which it does not acknowledge; it has read them when this returns, with what it has sent meanwhile.
func (c *Connection) Tell(t testing.TB, messages ...*packets.Publish) []*packets.Publish {
	t.Helper()
	for _, m := range messages {
		if m.Properties == nil {
			m.Properties = &packets.Properties{}
		}
		c.write(t, m)
	}
	return c.Receive(t, false)
}
