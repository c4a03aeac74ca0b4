package amqp10

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Outcomes that RabbitMQ 3 never sends, but others do.
func TestOutcomes(t *testing.T) {
	rejected := func(condition amqp.ErrCond) *amqp.StateRejected {
		return &amqp.StateRejected{Error: &amqp.Error{Condition: condition, Description: "the server's\nwords"}}
	}
	w := &lane{link: &link{endpoint: "amqps://mq:5671"}, address: "arrests"}
	for _, c := range []struct {
		name  string
		state amqp.DeliveryState
		class string
		words []string
	}{
		{"accepted", &amqp.StateAccepted{}, "", nil},
		{"rejected", rejected("amqp:precondition-failed"), "permanent", []string{"the server's words (amqp:precondition-failed)"}},
		{"rejected by the application", rejected("custody:unknown-unit"), "permanent", []string{"custody:unknown-unit"}},
		{"rejected without a reason", &amqp.StateRejected{}, "permanent", []string{"without saying why"}},
		{"full", rejected(amqp.ErrCondResourceLimitExceeded), "transient", []string{"amqp:resource-limit-exceeded"}},
		{"busy", rejected("com.microsoft:server-busy"), "transient", []string{"com.microsoft:server-busy"}},
		{"not allowed", rejected(amqp.ErrCondUnauthorizedAccess), contract.ReasonAuthenticationFailed, []string{"amqp:unauthorized-access"}},
		{"released", &amqp.StateReleased{}, "transient", []string{"released"}},
		{"modified", &amqp.StateModified{UndeliverableHere: true}, "transient", []string{"modified"}},
		{"received", &amqp.StateReceived{}, "transient", []string{"StateReceived"}},
	} {
		wantClass(t, c.name, w.outcome(c.state), c.class, c.words...)
	}
}

func wantClass(t *testing.T, name string, err error, class string, words ...string) {
	t.Helper()
	got := "transient"
	var u *sdk.UnavailableError
	switch {
	case err == nil:
		got = ""
	case sdk.IsPermanent(err):
		got = "permanent"
	case errors.As(err, &u):
		got = u.Reason
	}
	if got != class {
		t.Errorf("%s: %v is %q, want %q", name, err, got, class)
	}
	if err == nil {
		return
	}
	for _, word := range append(words, "amqps://mq:5671", "address arrests") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %q is not named: %v", name, word, err)
		}
	}
}

// What ends a link or a session: one of many messages that were sent, or none of them.
func TestFailures(t *testing.T) {
	ended := func(condition amqp.ErrCond) error {
		return &amqp.LinkError{RemoteErr: &amqp.Error{Condition: condition, Description: "no"}}
	}
	for _, c := range []struct {
		name  string
		err   error
		many  bool
		class string
		again bool
	}{
		{"larger than the server takes", &amqp.Error{Condition: amqp.ErrCondMessageSizeExceeded}, true, "permanent", false},
		{"one of many is too large", ended(amqp.ErrCondMessageSizeExceeded), true, "transient", true},
		{"this one is too large", ended(amqp.ErrCondMessageSizeExceeded), false, "permanent", false},
		{"a session over one", &amqp.SessionError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondPreconditionFailed}}, false, "permanent", false},
		{"deleted", ended(amqp.ErrCondResourceDeleted), true, contract.ReasonSystemError, false},
		{"forced", ended(amqp.ErrCondDetachForced), true, contract.ReasonConnectionFailed, false},
		{"not allowed", ended(amqp.ErrCondUnauthorizedAccess), true, contract.ReasonAuthenticationFailed, false},
		{"without a word", &amqp.LinkError{}, true, contract.ReasonSystemError, false},
	} {
		w := &lane{link: &link{endpoint: "amqps://mq:5671"}, address: "arrests", Sender: &amqp.Sender{}}
		err, again := w.failure(t.Context(), c.err, c.many)
		if again != c.again {
			t.Errorf("%s: again is %v", c.name, again)
		}
		wantClass(t, c.name, err, c.class)
	}
	w := &lane{link: &link{endpoint: "amqps://mq:5671"}, address: "arrests", Sender: &amqp.Sender{}}
	err, _ := w.failure(t.Context(), &amqp.ConnError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondConnectionForced, Description: "shutdown"}}, true)
	var u *sdk.UnavailableError
	if !errors.As(err, &u) || u.Reason != contract.ReasonConnectionFailed || !strings.Contains(err.Error(), "shutdown") {
		t.Error(err)
	}
}

func TestOwnAddress(t *testing.T) {
	gone := addressError("amqps://mq:5671", "arrests", &amqp.SessionError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondNotFound, Description: "no queue"}})
	wantClass(t, "of all", gone, contract.ReasonSystemError, "no queue (amqp:not-found)")
	wantClass(t, "of one", own(gone), "permanent", "no queue (amqp:not-found)")
	denied := addressError("amqps://mq:5671", "arrests", &amqp.Error{Condition: amqp.ErrCondUnauthorizedAccess})
	wantClass(t, "denied", own(denied), contract.ReasonAuthenticationFailed)
	if own(nil) != nil {
		t.Error("nothing is an error")
	}
}

func TestWave(t *testing.T) {
	var batch []publication
	for i := range maxLanes + 3 {
		a := publication{address: string(rune('a' + i))}
		batch = append(batch, a, a)
	}
	if n := wave(batch); n != 2*maxLanes {
		t.Errorf("%d messages", n)
	}
	if n := wave(batch[:6]); n != 6 {
		t.Errorf("%d messages", n)
	}
}

func TestFrames(t *testing.T) {
	frame := func(size uint32) []byte { return binary.BigEndian.AppendUint32(nil, size) }
	good := bytes.Join([][]byte{[]byte("AMQP\x03\x01\x00\x00"), frame(8), make([]byte, 4), frame(maxFrame), make([]byte, maxFrame-4), []byte("AMQP\x00\x01\x00\x00"), frame(12), make([]byte, 8)}, nil)
	for _, step := range []int{1, 3, 7, 5000, len(good)} {
		for _, bad := range []uint32{0, 7, maxFrame + 1, 1 << 31} {
			ours, theirs := net.Pipe()
			go func() {
				all := append(bytes.Clone(good), frame(bad)...)
				for len(all) > 0 {
					n := min(step, len(all))
					if _, err := theirs.Write(all[:n]); err != nil {
						return
					}
					all = all[n:]
				}
			}()
			n, err := io.Copy(io.Discard, &frames{Conn: ours})
			if err == nil || !strings.Contains(err.Error(), "does not speak AMQP 1.0") || n > int64(len(good)+4) || n < int64(len(good)-step) {
				t.Errorf("%d bytes at a time, frame of %d: %d bytes, %v", step, bad, n, err)
			}
			_ = ours.Close()
		}
	}
}

func TestOptions(t *testing.T) {
	for want, raw := range map[string]string{
		"address is missing":    `{}`,
		"it is the address":     `{"address": "a", "deadLetter": "a"}`,
		"not both":              `{"address": "a", "deadLetter": "b", "reject": true}`,
		"prefetch must be":      `{"address": "a", "prefetch": 5000}`,
		`identity "Guess"`:      `{"address": "a", "identity": "Guess"}`,
		"an address is longer":  `{"address": "` + strings.Repeat("a", 1025) + `"}`,
		`unknown field "queue"`: `{"queue": "a"}`,
	} {
		if _, err := decodeSource(json.RawMessage(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, raw := range map[string]string{
		"send is missing":            ``,
		"address is missing":         `{}`,
		`body "Map"`:                 `{"address": "a", "body": "Map"}`,
		"priority must be":           `{"address": "a", "priority": 10}`,
		"expiration must be":         `{"address": "a", "expiration": "1001h"}`,
		`"cloudEvents:id" is set by`: `{"address": "a", "properties": {"cloudEvents:id": "x"}}`,
		`"TraceParent" is set by`:    `{"address": "a", "properties": {"TraceParent": "x"}}`,
		"a name is 1 to 128 bytes":   `{"address": "a", "properties": {"": "x"}}`,
	} {
		if _, err := decodeSend(json.RawMessage(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, o := range map[string]connectionOptions{
		"must be amqps://host:port": {Servers: []string{"http://a"}},
		"all amqps:// or all":       {Servers: []string{"amqp://a", "amqps://b"}},
		"1 to 16 servers":           {},
		"hostname":                  {Servers: []string{"amqp://a"}, Hostname: "a\n"},
		"heartbeat":                 {Servers: []string{"amqp://a"}, Heartbeat: 1},
	} {
		if _, _, err := o.parse(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What a connection fails at, as the library says it.
func TestWhyThereIsNoConnection(t *testing.T) {
	for _, c := range []struct {
		err          error
		reason, word string
	}{
		{errors.New("SASL PLAIN auth failed with code 0x1: "), contract.ReasonAuthenticationFailed, "the password is wrong"},
		{errors.New("SASL PLAIN auth failed with code 0x4: later"), contract.ReasonConnectionFailed, "code 0x4"},
		{errors.New("no supported auth mechanism ([PLAIN])"), contract.ReasonAuthenticationFailed, "but ([PLAIN])"},
		{errors.New("unexpected protocol header 0x3, expected 0x0"), contract.ReasonAuthenticationFailed, "set auth.basic"},
		{errors.New(`unexpected protocol "HTTP"`), contract.ReasonSystemError, "HTTP"},
		{errors.New(`amqp: sender settlement mode "unsettled" requested, received "settled" from server`), contract.ReasonSystemError, "settle messages by itself"},
		{errors.New("remote error: tls: bad certificate"), contract.ReasonCertificateInvalid, "bad certificate"},
		{&amqp.ConnError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondUnauthorizedAccess, Description: "no host"}}, contract.ReasonAuthenticationFailed, "no host (amqp:unauthorized-access)"},
		{&amqp.ConnError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondNotAllowed}}, contract.ReasonSystemError, "amqp:not-allowed"},
		{io.EOF, contract.ReasonConnectionFailed, "the server has closed the connection"},
		{os.ErrDeadlineExceeded, contract.ReasonConnectionFailed, "silent"},
	} {
		err := unavailable("amqps://mq:5671", c.err)
		var u *sdk.UnavailableError
		if !errors.As(err, &u) || u.Reason != c.reason || !strings.Contains(err.Error(), c.word) || !strings.HasPrefix(err.Error(), "amqps://mq:5671: ") {
			t.Errorf("%v is %v, want %s and %q", c.err, err, c.reason, c.word)
		}
	}
}
