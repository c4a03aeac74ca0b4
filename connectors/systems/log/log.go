package log

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

const (
	maxBatch = 256
	// maxBody of a message that is printed, in bytes.
	maxBody = 4 << 10
)

// What is printed of a message.
const (
	printAttributes = "Attributes"
	printBody       = "Body"
	printNothing    = "Nothing"
)

// options are the JSON of the API's LogSink.
type options struct {
	Print string `json:"print"`
}

// sink prints messages.
type sink struct {
	log   *slog.Logger
	shown string
}

// NewSink makes a sink of the JSON of the API's LogSink.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	switch o.Print {
	case "":
		o.Print = printAttributes
	case printAttributes, printBody, printNothing:
	default:
		return nil, fmt.Errorf("print %q is not one of %s, %s and %s", o.Print, printAttributes, printBody, printNothing)
	}
	return &sink{log: rt.Log, shown: o.Print}, nil
}

// Check finds nothing that could fail.
func (s *sink) Check(context.Context) error { return nil }

// Close has nothing to release.
func (s *sink) Close() error { return nil }

// Operation is the Connector's own; there is no other.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if raw != nil {
		return nil, errors.New("a log has no operations")
	}
	return s, nil
}

// MaxBatch implements sdk.Operation.
func (s *sink) MaxBatch() int { return maxBatch }

// Opaque implements sdk.Opaque: bodies are not looked into.
func (s *sink) Opaque() bool { return true }

// Streams implements sdk.Streaming: a large body is let go of unread.
func (s *sink) Streams() bool { return true }

// Write implements sdk.Operation.
func (s *sink) Write(_ context.Context, batch []*sdk.Delivery) []error {
	if s.shown != printNothing {
		for _, d := range batch {
			s.log.Info("message", s.attributes(d)...)
		}
	}
	return make([]error, len(batch))
}

// attributes of a line.
func (s *sink) attributes(d *sdk.Delivery) []any {
	size := int64(len(d.Data))
	if d.Claim != nil {
		size = d.Claim.Size()
	}
	out := []any{"id", d.ID, "source", d.Source, "type", d.Type, "eventTime", d.Time, "size", size, "sequence", d.Sequence, "attempt", d.Attempt}
	if d.Subject != "" {
		out = append(out, "subject", d.Subject)
	}
	if d.PartitionKey != "" {
		out = append(out, "partitionKey", d.PartitionKey)
	}
	if len(d.Headers) > 0 {
		out = append(out, "headers", d.Headers)
	}
	if s.shown == printBody && d.Claim == nil {
		out = append(out, "body", text(d.Data))
	}
	return out
}

// text of a body, or its beginning.
func text(body []byte) string {
	if !utf8.Valid(body) {
		return fmt.Sprintf("%d bytes that are no text", len(body))
	}
	if len(body) <= maxBody {
		return string(body)
	}
	cut := maxBody
	for cut > 0 && !utf8.RuneStart(body[cut]) {
		cut--
	}
	return string(body[:cut]) + "..."
}
