package stomp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Commands.
const (
	cmdConnect     = "CONNECT"
	cmdConnected   = "CONNECTED"
	cmdSend        = "SEND"
	cmdSubscribe   = "SUBSCRIBE"
	cmdUnsubscribe = "UNSUBSCRIBE"
	cmdAck         = "ACK"
	cmdDisconnect  = "DISCONNECT"
	cmdMessage     = "MESSAGE"
	cmdReceipt     = "RECEIPT"
	cmdError       = "ERROR"
)

// Headers of the protocol.
const (
	hdrAck           = "ack"
	hdrContentLength = "content-length"
	hdrContentType   = "content-type"
	hdrDestination   = "destination"
	hdrHeartBeat     = "heart-beat"
	hdrID            = "id"
	hdrMessage       = "message"
	hdrMessageID     = "message-id"
	hdrReceipt       = "receipt"
	hdrTransaction   = "transaction"
	hdrReceiptID     = "receipt-id"
	hdrSubscription  = "subscription"
	hdrVersion       = "version"
)

const (
	maxHead    = 64 << 10
	maxHeaders = 512
)

// frame of the protocol.
type frame struct {
	command string
	headers []pair
	body    []byte
	// skipped is the size of a body that was too large to be taken in.
	skipped int64
}

type pair struct{ name, value string }

func newFrame(command string, headers ...string) *frame {
	f := &frame{command: command}
	for i := 0; i < len(headers); i += 2 {
		f.set(headers[i], headers[i+1])
	}
	return f
}

func (f *frame) set(name, value string) { f.headers = append(f.headers, pair{name, value}) }

// get a header; of several with one name the first counts.
func (f *frame) get(name string) string {
	for _, h := range f.headers {
		if h.name == name {
			return h.value
		}
	}
	return ""
}

// errFrame says that what came is not STOMP.
var errFrame = errors.New("what the server sends is no STOMP")

// readFrame takes in a frame whose body has at most maxBody bytes; a larger one is read over. nil is a heart-beat.
func readFrame(r *bufio.Reader, maxBody int) (*frame, error) {
	left := maxHead
	command, err := readLine(r, &left)
	if err != nil {
		return nil, err
	}
	if len(command) == 0 {
		return nil, nil
	}
	f := &frame{command: string(command)}
	switch f.command {
	case cmdConnected, cmdMessage, cmdReceipt, cmdError:
	default:
		return nil, fmt.Errorf("%w: it begins with %.20q", errFrame, f.command)
	}
	for {
		line, err := readLine(r, &left)
		if err != nil {
			return nil, unexpected(err)
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(f.headers) == maxHeaders {
			return nil, fmt.Errorf("%w: a header is malformed, or there are more than %d", errFrame, maxHeaders)
		}
		if f.command == cmdConnected { // whose headers have no escapes
			f.set(string(name), string(value))
			continue
		}
		n, err1 := unescape(name)
		v, err2 := unescape(value)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%w: a header has an escape that is none", errFrame)
		}
		f.set(n, v)
	}
	return f, unexpected(f.readBody(r, maxBody))
}

func (f *frame) readBody(r *bufio.Reader, maxBody int) error {
	length := f.get(hdrContentLength)
	if length == "" {
		return f.readToNull(r, maxBody)
	}
	size, err := strconv.ParseInt(strings.TrimSpace(length), 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("%w: content-length is %.20q", errFrame, length)
	}
	if size > int64(maxBody) {
		f.skipped = size
		if _, err := io.CopyN(io.Discard, r, size); err != nil {
			return err
		}
	} else {
		f.body = make([]byte, size)
		if _, err := io.ReadFull(r, f.body); err != nil {
			return err
		}
	}
	if end, err := r.ReadByte(); err != nil || end != 0 {
		return errors.Join(err, fmt.Errorf("%w: a body is longer than its content-length", errFrame))
	}
	return nil
}

func (f *frame) readToNull(r *bufio.Reader, maxBody int) error {
	for {
		part, err := r.ReadSlice(0)
		if err == nil {
			part = part[:len(part)-1]
		}
		if f.skipped > 0 || len(f.body)+len(part) > maxBody {
			f.skipped += int64(len(f.body) + len(part))
			f.body = nil
		} else {
			f.body = append(f.body, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readLine without its end, within what is left for a frame's head.
func readLine(r *bufio.Reader, left *int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return nil, fmt.Errorf("%w: the head of a frame has more than %d bytes", errFrame, maxHead)
		}
		line = append(line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
	}
}

func unescape(b []byte) (string, error) {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b), nil
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		if i++; i == len(b) {
			return "", errFrame
		}
		switch b[i] {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 'c':
			out = append(out, ':')
		case '\\':
			out = append(out, '\\')
		default:
			return "", errFrame
		}
	}
	return string(out), nil
}

var escapes = strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`, ":", `\c`)

// append the frame as it goes over the wire. CONNECT has no escapes; what cannot be said without is left to checks before.
func (f *frame) append(out []byte) []byte {
	out = append(append(out, f.command...), '\n')
	for _, h := range f.headers {
		name, value := h.name, h.value
		if f.command != cmdConnect {
			name, value = escapes.Replace(name), escapes.Replace(value)
		}
		out = append(append(append(append(out, name...), ':'), value...), '\n')
	}
	return append(append(append(out, '\n'), f.body...), 0, '\n')
}
