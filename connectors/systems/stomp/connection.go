package stomp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	closeTimeout = 2 * time.Second
	// bye is the receipt that a connection ends with.
	bye = "bye"
	// maxExcerpt of what a server says, in an error.
	maxExcerpt = 200
)

func newDialer(rt sdk.Runtime, o *connectionOptions) (*cluster.Dialer, error) {
	servers, secure, err := o.parse()
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthBasic, contract.AuthAnonymous:
	default:
		return nil, fmt.Errorf("auth %q is neither basic nor anonymous", rt.Config.Auth.Kind)
	}
	return cluster.New(rt, schemes, servers, secure, unavailable), nil
}

// dial one of the servers.
func dial(ctx context.Context, d *cluster.Dialer, o *connectionOptions) (*link, error) {
	return cluster.Dial(ctx, d, func(_ context.Context, c cluster.Conn) (*link, error) {
		if strings.ContainsAny(c.Proof.User+c.Proof.Password, "\r\n") {
			return nil, sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("Secret %s: STOMP carries no user name or password with a line end", d.Runtime.Config.Auth.SecretName))
		}
		l := &link{conn: c.Conn, reader: bufio.NewReaderSize(c.Conn, 16<<10), proof: c.Proof, endpoint: c.Server.Endpoint, maxBody: contract.MaxMessageSize}
		if err := l.greet(o, c, d.Runtime.Config.Auth.Kind); err != nil {
			return nil, err
		}
		l.beat()
		return l, nil
	})
}

// link is a connection that is open. One reads from it; many write.
type link struct {
	conn     net.Conn
	reader   *bufio.Reader
	proof    cluster.Proof
	endpoint string
	maxBody  int
	// old: STOMP 1.1, whose acknowledgements name the message.
	old bool
	// flushes its disk for each receipt: ActiveMQ, and nobody else that is known. To others the end of a transaction is no more than that, while a receipt
	// for a message says that they have it.
	flushes bool
	// patience is how long the server may be silent; 0 for as long as it likes.
	patience time.Duration
	// every so often the server is to hear of us; 0 never.
	every time.Duration

	writing sync.Mutex
	buffer  []byte
	wrote   time.Time
	stop    chan struct{}
	closing sync.Once
}

// greet the server.
func (l *link) greet(o *connectionOptions, c cluster.Conn, auth contract.AuthKind) error {
	beat := time.Duration(o.Heartbeat).Milliseconds()
	host := o.VirtualHost
	if host == "" {
		host = c.Server.Host
	}
	f := newFrame(cmdConnect, "accept-version", "1.1,1.2", "host", host, hdrHeartBeat, fmt.Sprintf("%d,%d", beat, beat))
	if auth == contract.AuthBasic {
		f.set("login", c.Proof.User)
		f.set("passcode", c.Proof.Password)
	}
	if err := l.write(f); err != nil {
		return err
	}
	var answer *frame
	for answer == nil {
		var err error
		if answer, err = readFrame(l.reader, maxHead); err != nil {
			return err
		}
	}
	switch answer.command {
	case cmdConnected:
	case cmdError:
		return serverError(answer)
	default:
		return errFrame
	}
	switch v := answer.get(hdrVersion); v {
	case "1.2":
	case "1.1":
		l.old = true
	default:
		return fmt.Errorf("the server speaks STOMP %.10q, and not 1.1 or 1.2", v)
	}
	l.flushes = strings.HasPrefix(answer.get("server"), "ActiveMQ/")
	theirs, ours, _ := strings.Cut(answer.get(hdrHeartBeat), ",")
	if ms, err := strconv.Atoi(strings.TrimSpace(theirs)); err == nil && ms > 0 && beat > 0 {
		l.patience = 3 * time.Duration(max(int64(ms), beat)) * time.Millisecond
	}
	if ms, err := strconv.Atoi(strings.TrimSpace(ours)); err == nil && ms > 0 && beat > 0 {
		l.every = time.Duration(max(int64(ms), beat)) * time.Millisecond
	}
	return nil
}

// beat lets the server hear of us.
func (l *link) beat() {
	l.stop = make(chan struct{})
	if l.every == 0 {
		return
	}
	go func() {
		ticker := time.NewTicker(l.every / 2)
		defer ticker.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-ticker.C:
			}
			l.writing.Lock()
			if time.Since(l.wrote) > l.every/3 {
				_, _ = l.conn.Write([]byte{'\n'}) // that it is lost the reader will see
				l.wrote = time.Now()
			}
			l.writing.Unlock()
		}
	}()
}

// write frames, together.
func (l *link) write(frames ...*frame) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	out := l.buffer[:0]
	for _, f := range frames {
		out = f.append(out)
	}
	_, err := l.conn.Write(out)
	l.wrote = time.Now()
	if l.buffer = out; cap(out) > 1<<20 {
		l.buffer = nil
	}
	return err
}

// read the next frame that is no heart-beat.
func (l *link) read() (*frame, error) {
	for {
		if l.patience > 0 {
			_ = l.conn.SetReadDeadline(time.Now().Add(l.patience))
		}
		f, err := readFrame(l.reader, l.maxBody)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("the server was silent for %s", l.patience)
		}
		if f != nil || err != nil {
			return f, err
		}
	}
}

// close the connection without a word.
func (l *link) close() {
	l.closing.Do(func() {
		close(l.stop)
		_ = l.conn.Close()
	})
}

// leave in order: what was sent before is worked on before the answer comes. Nobody else reads.
func (l *link) leave() {
	defer l.close()
	_ = l.conn.SetDeadline(time.Now().Add(closeTimeout))
	l.patience = 0
	if l.write(newFrame(cmdDisconnect, hdrReceipt, bye)) != nil {
		return
	}
	for {
		f, err := readFrame(l.reader, 0)
		if err != nil || f != nil && (f.command == cmdReceipt && f.get(hdrReceiptID) == bye || f.command == cmdError) {
			return
		}
	}
}

// errServer is an ERROR of the server's.
type errServer struct {
	text string
	// refused says that it is about who we are.
	refused bool
}

func (e *errServer) Error() string { return e.text }

// serverError is what an ERROR frame says.
func serverError(f *frame) error {
	text := oneline.Excerpt(f.get(hdrMessage), maxExcerpt)
	detail := oneline.Excerpt(string(f.body), maxExcerpt)
	switch {
	case text == "":
		text = detail
	case detail != "" && !strings.Contains(text, detail):
		text += ": " + detail
	}
	if text == "" {
		text = "the server reports an error without saying which"
	}
	lower := strings.ToLower(text)
	refused := false
	for _, word := range []string{"access refused", "access_refused", "bad connect", "not authorized", "authentication", "invalid credentials", "user name [", "password is invalid", "securityexception"} {
		refused = refused || strings.Contains(lower, word)
	}
	return &errServer{text, refused}
}

// unavailable is the state of a server that a connection, or what is asked over it, fails at.
func unavailable(endpoint string, err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	reason := contract.ReasonConnectionFailed
	var answer *errServer
	switch {
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	case errors.As(err, &answer) && answer.refused:
		reason = contract.ReasonAuthenticationFailed
	case errors.As(err, &answer), errors.Is(err, errFrame):
		reason = contract.ReasonSystemError
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the server has closed the connection")
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", endpoint, err))
}
