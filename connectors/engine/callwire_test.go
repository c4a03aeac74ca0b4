package engine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// headersOf lines `name: value`.
func headersOf(lines string) nats.Header {
	h := nats.Header{}
	for line := range strings.SplitSeq(lines, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h[name] = append(h[name], value)
		}
	}
	return h
}

// FuzzDecodeRequest: whatever is accepted can be sent on, and is the same at the next hop.
func FuzzDecodeRequest(f *testing.F) {
	f.Add("", []byte(nil))
	f.Add("metip-method: GET\nmetip-path: /a%2Fb/c\nmetip-query: a=b&c\nhttp-accept: text/html\nhttp-accept: x\nmetip-timeout-ms: 12", []byte(`{"a":1}`))
	f.Add("ce-id: a%20b\nce-source: /metip/ns/src\nce-type: x\nce-time: 2026-01-02T03:04:05Z\ntraceparent: 00-x\nce-unit: 7\ncontent-type: text/plain", []byte("x"))
	f.Add("metip-path: /%2e%2E/x\nmetip-method: a b\nmetip-timeout-ms: -1\nhttp-: x\nHTTP-X: y\nhttp-X: z", []byte{0xff})
	f.Fuzz(func(t *testing.T, lines string, body []byte) {
		r, timeout, err := decodeRequest(&nats.Msg{Header: headersOf(lines), Data: body})
		if err != nil {
			return
		}
		if timeout < 0 || r.Method == "" || r.Check() != nil {
			t.Fatalf("%v %+v", timeout, r)
		}
		for segment := range strings.SplitSeq(r.Path, "/") {
			if segment == ".." {
				t.Fatal(r.Path)
			}
		}
		m, err := encodeRequest("svc.ns.in.svc", r)
		if err != nil {
			return // its headers are too large
		}
		back, _, err := decodeRequest(m)
		if err != nil {
			t.Fatalf("what was accepted is refused: %v\n%+v", err, r)
		}
		// A time is only kept as precisely as it is written, and what no header can hold is dropped.
		ignore := []cmp.Option{cmpopts.IgnoreUnexported(sdk.Request{}, sdk.Message{}), cmpopts.IgnoreFields(sdk.Message{}, "Time", "Headers", "ContentType", "Format"), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(r, back, ignore...); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add("", []byte(nil))
	f.Add("metip-status: 404\nhttp-etag: x\nmetip-hop: ns/svc\nmetip-refused: busy", []byte("{}"))
	f.Add("metip-status: 99999999999999999999", []byte(nil))
	f.Fuzz(func(t *testing.T, lines string, body []byte) {
		a, _, err := decodeAnswer(&nats.Msg{Header: headersOf(lines), Data: body})
		if err != nil {
			return
		}
		if a.Status < 200 || a.Status > 599 || a.Check() != nil {
			t.Fatalf("%+v", a)
		}
		m, err := encodeAnswer("_INBOX.x", a, "")
		if err != nil {
			return
		}
		back, _, err := decodeAnswer(m)
		if err != nil || back.Status != a.Status || back.Hop != a.Hop || cmp.Diff(a.Header, back.Header, cmpopts.EquateEmpty()) != "" {
			t.Fatalf("%v: %+v is %+v", err, a, back)
		}
	})
}

func TestCallConfig(t *testing.T) {
	t.Parallel()
	base := `{"version":1,"hash":"h","connector":{"namespace":"ns","name":"c","uid":"u","integration":"in"},"broker":{"urls":["nats://x"]},`
	good := []string{
		`"service":{"system":{"type":"stub","options":{}},"maxConcurrent":1,"timeout":"1s"}}`,
		`"source":{"system":{"type":"http","options":{}},"eventType":"x","format":"JSON","deduplicationWindow":"1m","calls":[{"route":"r","integration":"in","service":"s","timeout":"1s"}]}}`,
	}
	for _, c := range good {
		if _, err := ParseConfig([]byte(base + c)); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
	for text, change := range map[string]string{
		"system.type": `"type":"stub"|"type":""`, "maxConcurrent": `"maxConcurrent":1|"maxConcurrent":0`, "service.timeout": `"timeout":"1s"|"timeout":"0s"`,
		"calls[0].timeout": `"timeout":"1s"|"timeout":"0s"`, "calls[0] lacks": `"service":"s"|"service":"a.b"`,
	} {
		from, to, _ := strings.Cut(change, "|")
		refused := false
		for _, c := range good {
			_, err := ParseConfig([]byte(base + strings.Replace(c, from, to, 1)))
			refused = refused || err != nil && strings.Contains(err.Error(), text)
		}
		if !refused {
			t.Errorf("%s is not refused", text)
		}
	}
	if got := contract.CancelSubject("ns", "in", "s"); got != "svc.ns.in.s.cancel" {
		t.Error(got)
	}
}
