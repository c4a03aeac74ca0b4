package stomp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(text string, maxBody int) (*frame, error) {
	return readFrame(bufio.NewReaderSize(strings.NewReader(text), 16), maxBody)
}

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       *frame
	}{
		{"a heart-beat", "\n", nil},
		{"without length", "MESSAGE\nmessage-id:ID:a\\cb\nx:1\nx:2\n\nbody\x00", &frame{command: cmdMessage, headers: []pair{{"message-id", "ID:a:b"}, {"x", "1"}, {"x", "2"}}, body: []byte("body")}},
		{"with length", "MESSAGE\r\ncontent-length:3\r\n\r\na\x00b\x00", &frame{command: cmdMessage, headers: []pair{{"content-length", "3"}}, body: []byte("a\x00b")}},
		{"escapes", "RECEIPT\nreceipt-id:a\\n\\r\\\\\\cb\n\n\x00", &frame{command: cmdReceipt, headers: []pair{{"receipt-id", "a\n\r\\:b"}}}},
		{"no escapes in the first", "CONNECTED\nserver:a\\b:c\n\n\x00", &frame{command: cmdConnected, headers: []pair{{"server", `a\b:c`}}}},
		{"too long, with length", "MESSAGE\ncontent-length:101\n\n" + strings.Repeat("x", 101) + "\x00", &frame{command: cmdMessage, headers: []pair{{"content-length", "101"}}, skipped: 101}},
		{"too long, without", "MESSAGE\n\n" + strings.Repeat("x", 101) + "\x00", &frame{command: cmdMessage, skipped: 101}},
	} {
		got, err := read(c.text, 100)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(frame{}, pair{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	// What is too long is read over: the next frame is found.
	r := bufio.NewReader(strings.NewReader("MESSAGE\n\n" + strings.Repeat("x", 10_000) + "\x00\nRECEIPT\nreceipt-id:1\n\n\x00"))
	for _, want := range []string{cmdMessage, "", cmdReceipt} {
		f, err := readFrame(r, 100)
		if err != nil || want == "" && f != nil || want != "" && f.command != want {
			t.Errorf("%+v, %v, want %s", f, err, want)
		}
	}
}

func TestFramesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n", "no colon": "MESSAGE\nabc\n\n\x00", "an escape": "MESSAGE\na:\\t\n\n\x00", "a length": "MESSAGE\ncontent-length:-1\n\n\x00",
		"a body that goes on": "MESSAGE\ncontent-length:1\n\nab\x00", "a long head": "MESSAGE\na:" + strings.Repeat("x", maxHead) + "\n\n\x00",
		"many headers": "MESSAGE\n" + strings.Repeat("a:b\n", maxHeaders+1) + "\n\x00",
	} {
		if f, err := read(text, 100); !errors.Is(err, errFrame) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	for _, text := range []string{"MESSAGE", "MESSAGE\n", "MESSAGE\na:b", "MESSAGE\n\nabc", "MESSAGE\ncontent-length:9\n\nabc"} {
		if f, err := read(text, 100); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
}

// What is written is read as it was, whatever its headers hold.
func FuzzFrame(f *testing.F) {
	f.Add("a:b\n\r\\c", "ü", []byte("body"))
	f.Fuzz(func(t *testing.T, name, value string, body []byte) {
		if name == hdrContentLength || name == "" {
			return
		}
		sent := newFrame(cmdMessage, name, value, hdrContentLength, "")
		sent.headers = sent.headers[:1]
		sent.body = body
		if bytes.IndexByte(body, 0) >= 0 || len(name)+len(value) > maxHead/4 {
			return
		}
		got, err := readFrame(bufio.NewReader(bytes.NewReader(sent.append(nil))), 1<<20)
		if err != nil || got.get(name) != value || !bytes.Equal(got.body, body) {
			t.Fatalf("%q: %q has become %+v, %v", name, value, got, err)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("MESSAGE\ncontent-length:3\n\na\x00b\x00"))
	f.Add([]byte("ERROR\nmessage:no\n\n\x00\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for range 100 {
			got, err := readFrame(r, 1000)
			if err != nil {
				return
			}
			if got != nil && (len(got.body) > 1000 || len(got.headers) > maxHeaders) {
				t.Fatalf("%+v", got)
			}
		}
	})
}
