package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 5 * time.Second
	closeTimeout   = 2 * time.Second
	// certificateWait is how long a server that breaks off is given to say that it is our certificate's fault.
	certificateWait = time.Second
	// maxExcerpt of what a server says, in an error.
	maxExcerpt = 200
)

// proof is what a connection was made with: another one makes another connection.
type proof struct {
	user, password string
	certificates   uint64
}

// hello is who a connection is for.
type hello struct {
	client string
	// clean: without a session that was there before, and that outlives the connection.
	clean bool
	// expiry of the session in seconds, and how many messages it takes that are not acknowledged (MQTT 5).
	expiry  uint32
	receive uint16
}

// dialer makes connections.
type dialer struct {
	rt      sdk.Runtime
	options connectionOptions
	servers []server
	tls     *tlsfiles.Client // nil: not encrypted
	next    atomic.Uint32    // the server that is tried first
}

func newDialer(rt sdk.Runtime, o connectionOptions) (*dialer, error) {
	servers, secure, err := o.parse()
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthBasic, contract.AuthAnonymous:
	default:
		return nil, fmt.Errorf("auth %q is neither basic nor anonymous", rt.Config.Auth.Kind)
	}
	d := &dialer{rt: rt, options: o, servers: servers}
	if secure {
		d.tls = tlsfiles.NewClient(rt, servers[0].host)
	}
	return d, nil
}

// proof is what the Secrets hold now.
func (d *dialer) proof() (p proof, config *tls.Config, err error) {
	if d.rt.Config.Auth.Kind == contract.AuthBasic {
		user, err := d.rt.Secrets.Get(contract.FileUsername)
		if err != nil {
			return p, nil, err
		}
		password, err := d.rt.Secrets.Get(contract.FilePassword)
		if err != nil {
			return p, nil, err
		}
		p.user, p.password = string(user), string(password)
		if len(user) > maxText || len(password) > maxText {
			return p, nil, sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("Secret %s: MQTT carries no user name or password of more than %d bytes", d.rt.Config.Auth.SecretName, maxText))
		}
	}
	if d.tls != nil {
		config, p.certificates, err = d.tls.Config()
	}
	return p, config, err
}

// outdated tells whether the Secrets hold something else than a link was made with. What cannot be read changes nothing.
func (d *dialer) outdated(l *link) bool {
	p, _, err := d.proof()
	return err == nil && p != l.proof
}

// dial one of the servers.
func (d *dialer) dial(ctx context.Context, h hello) (*link, error) {
	p, config, err := d.proof()
	if err != nil {
		return nil, err
	}
	first := int(d.next.Load())
	for i := range d.servers {
		n := (first + i) % len(d.servers)
		var l *link
		if l, err = d.open(ctx, d.servers[n], p, config, h); err == nil {
			d.next.Store(uint32(n))
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

func (d *dialer) open(ctx context.Context, s server, p proof, config *tls.Config, h hello) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := d.rt.Dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, unavailable(s.endpoint, err)
	}
	raw := conn
	// The handshakes know no context: its end closes the connection below them.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	if config != nil {
		config = config.Clone()
		if d.rt.Config.TLS == nil || d.rt.Config.TLS.ServerName == "" {
			config.ServerName = s.host
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, openError(s.endpoint, err)
		}
		conn = secure
	}
	l := &link{conn: conn, reader: bufio.NewReaderSize(conn, 16<<10), proof: p, endpoint: s.endpoint, five: d.options.five()}
	if err = l.greet(d, p, h); err == nil && !stop() {
		err = ctx.Err() // raw was closed just now
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return nil, openError(s.endpoint, err)
	}
	l.beat()
	return l, nil
}

// link is a connection that is open. One reads from it; many write.
type link struct {
	conn     net.Conn
	reader   *bufio.Reader
	proof    proof
	endpoint string
	five     bool
	// accepted is the server's CONNACK: what it can do.
	accepted *packet
	// every so often the server is to hear of us, and answers.
	every time.Duration

	writing sync.Mutex
	stop    chan struct{}
	closing sync.Once
}

// greet the server.
func (l *link) greet(d *dialer, p proof, h hello) error {
	keep := time.Duration(d.options.KeepAlive)
	level, flags := byte(4), byte(0)
	if l.five {
		level = 5
	}
	if h.clean {
		flags |= 0x02
	}
	basic := d.rt.Config.Auth.Kind == contract.AuthBasic
	if basic {
		flags |= 0xc0
	}
	head := append(appendText(nil, "MQTT"), level, flags)
	head = binary.BigEndian.AppendUint16(head, uint16(keep/time.Second))
	if l.five {
		var props []byte
		if h.expiry > 0 {
			props = binary.BigEndian.AppendUint32(append(props, 0x11), h.expiry)
		}
		if h.receive > 0 {
			props = binary.BigEndian.AppendUint16(append(props, 0x21), h.receive)
		}
		head = append(appendLength(head, len(props)), props...)
	}
	head = appendText(head, h.client)
	if basic {
		head = appendText(appendText(head, p.user), p.password)
	}
	if err := l.write(appendPacket(nil, kindConnect, 0, head, nil)); err != nil {
		return l.why(err)
	}
	answer, err := readPacket(l.reader, 0, l.five)
	switch {
	case err != nil:
		return err
	case answer.kind != kindConnack:
		return errPacket
	case answer.code != 0:
		return connackError(answer, l.five)
	}
	l.accepted, l.every = answer, keep
	if answer.keepAlive > 0 {
		l.every = min(l.every, time.Duration(answer.keepAlive)*time.Second)
	}
	return nil
}

// why a write failed: a server that does not like our certificate says so after the handshake, to who reads.
func (l *link) why(err error) error {
	_ = l.conn.SetReadDeadline(time.Now().Add(certificateWait))
	if _, cause := l.reader.Peek(1); tlsfiles.IsCertificateError(cause) {
		return cause
	}
	return err
}

// beat asks the server for a sign of life, twice within the time that either may be silent.
func (l *link) beat() {
	l.stop = make(chan struct{})
	go func() {
		ticker := time.NewTicker(l.every / 2)
		defer ticker.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-ticker.C:
			}
			_ = l.write([]byte{kindPingreq << 4, 0}) // that it is lost the reader will see
		}
	}()
}

// write packets, together.
func (l *link) write(packets []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	_, err := l.conn.Write(packets)
	return err
}

// read the next packet.
func (l *link) read() (*packet, error) {
	patience := l.every + l.every/2
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	p, err := readPacket(l.reader, contract.MaxMessageSize, l.five)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the server was silent for %s", patience)
	}
	return p, err
}

// close the connection without a word.
func (l *link) close() {
	l.closing.Do(func() {
		close(l.stop)
		_ = l.conn.Close()
	})
}

// bye says that the connection ends in order: the session stays as long as it is to.
func (l *link) bye() error { return l.write([]byte{kindDisconnect << 4, 0}) }

// leave in order; what was sent before was answered.
func (l *link) leave() {
	_ = l.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	_ = l.bye()
	l.close()
}
