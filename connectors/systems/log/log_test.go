package log

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/sdk"
)

func delivery(body string) *sdk.Delivery {
	return &sdk.Delivery{Message: &sdk.Message{
		ID: "m1", Source: "urn:custody", Type: "custody.arrest", Subject: "case 7", PartitionKey: "p7", Time: time.Unix(0, 0).UTC(),
		Headers: map[string]string{"station": "Bow Street"}, Data: []byte(body),
	}, Sequence: 12, Attempt: 1}
}

// written are the lines of a batch.
func written(t *testing.T, options string, batch ...*sdk.Delivery) (lines []map[string]any) {
	t.Helper()
	var out bytes.Buffer
	s, err := NewSink(sdk.Runtime{Log: slog.New(slog.NewJSONHandler(&out, nil))}, json.RawMessage(options))
	if err != nil {
		t.Fatal(err)
	}
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range op.Write(t.Context(), batch) {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	for line := range strings.Lines(out.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		delete(fields, slog.TimeKey)
		delete(fields, slog.LevelKey)
		lines = append(lines, fields)
	}
	return lines
}

// claim of a size, that nobody may read.
type claim int64

func (c claim) Size() int64 { return int64(c) }

func (c claim) Open(context.Context) io.ReadCloser { panic("it is read") }

func TestPrint(t *testing.T) {
	line := map[string]any{
		"msg": "message", "id": "m1", "source": "urn:custody", "type": "custody.arrest", "subject": "case 7", "partitionKey": "p7", "eventTime": "1970-01-01T00:00:00Z",
		"headers": map[string]any{"station": "Bow Street"}, "sequence": 12.0, "attempt": 1.0, "size": 5.0,
	}
	if diff := cmp.Diff([]map[string]any{line, line}, written(t, `{}`, delivery("12345"), delivery("67890"))); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if lines := written(t, `{"print": "Nothing"}`, delivery("12345")); lines != nil {
		t.Errorf("printed %v", lines)
	}
	long := strings.Repeat("x", maxBody-1) + "éé"
	for body, want := range map[string]string{
		`{"id": 7}`: `{"id": 7}`, "two\nlines": "two\nlines", "\xff\xfe": "2 bytes that are no text", long: strings.Repeat("x", maxBody-1) + "...",
	} {
		lines := written(t, `{"print": "Body"}`, delivery(body))
		if len(lines) != 1 || lines[0]["body"] != want {
			t.Errorf("%.20q: %d lines, %.40v", body, len(lines), lines)
		}
	}
	large := delivery("")
	large.Claim = claim(1 << 30)
	lines := written(t, `{"print": "Body"}`, large)
	if _, ok := lines[0]["body"]; ok || lines[0]["size"] != float64(1<<30) {
		t.Errorf("a large body is printed: %v", lines)
	}
	if _, err := NewSink(sdk.Runtime{}, json.RawMessage(`{"print": "All"}`)); err == nil {
		t.Error("print All is accepted")
	}
}
