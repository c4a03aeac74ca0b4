package generator

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

func open(t *testing.T, file, options, schema string) (*source, error) {
	t.Helper()
	config := &contract.Config{Source: &contract.Source{System: contract.System{Type: "generator"}, Format: sdk.FormatJSON, Position: true}}
	if schema != "" {
		config.Source.Schema = &contract.Schema{Text: schema}
	}
	rt := fakes.Runtime(t, config, &fakes.Secrets{}, nil)
	rt.Position = fakes.NewPosition(file)
	made, err := NewSource(rt, json.RawMessage(options))
	if err != nil {
		return nil, err
	}
	return made.(*source), nil
}

func mustOpen(t *testing.T, file, options, schema string) *source {
	t.Helper()
	s, err := open(t, file, options, schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantMade: messages 1 to n are on the bus, each once, in order.
func wantMade(t *testing.T, bus *fakes.Publisher, n int) {
	t.Helper()
	stored := bus.Stored()
	if len(stored) != n {
		t.Fatalf("%d messages are on the bus, want %d", len(stored), n)
	}
	for i, m := range stored {
		var body struct{ Number int }
		if err := json.Unmarshal(m.Data, &body); err != nil || m.ID != strconv.Itoa(i+1) || body.Number != i+1 || m.ContentType != "application/json" {
			t.Fatalf("message %d is %s, %s: %s (%v)", i+1, m.ID, m.ContentType, m.Data, err)
		}
	}
}

func TestCount(t *testing.T) {
	file, bus := filepath.Join(t.TempDir(), "position"), &fakes.Publisher{}
	for _, count := range []int{1500, 2000} { // raised, it goes on
		ctx, cancel := context.WithCancel(t.Context())
		s := mustOpen(t, file, `{"rate": 50000, "count": `+strconv.Itoa(count)+`, "size": "100"}`, "")
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, bus, &fakes.Reporter{}) }()
		fakes.Eventually(t, time.Minute, "all are made", func() bool { return len(bus.Stored()) == count })
		fakes.Eventually(t, time.Minute, "the position is stored", func() bool {
			raw, err := fakes.ReadPosition(file)
			return err == nil && string(raw) == `{"next":`+strconv.Itoa(count+1)+`}`
		})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantMade(t, bus, count)
	}
	if n := bus.Repeats(); n != 0 {
		t.Errorf("%d messages were made twice", n)
	}
	if m := bus.Stored()[1234]; len(m.Data) != 100 {
		t.Errorf("a body has %d bytes, want 100", len(m.Data))
	}
}

// A pod that dies leaves a position behind what it has made: the next one makes the same messages again.
func TestKilled(t *testing.T) {
	file, bus := filepath.Join(t.TempDir(), "position"), &fakes.Publisher{}
	killed := mustOpen(t, file, `{"rate": 1000, "count": 400}`, "")
	p := newPace(1000, time.Now().Add(-200*time.Millisecond))
	if _, err := killed.round(t.Context(), bus, p); err != nil {
		t.Fatal(err)
	}
	made := len(bus.Stored())
	if raw, err := fakes.ReadPosition(file); err != nil || raw != nil || made < 200 {
		t.Fatalf("position %s, %v, with %d made", raw, err, made)
	}
	next := mustOpen(t, file, `{"rate": 1000, "count": 400}`, "")
	if _, err := next.round(t.Context(), bus, newPace(1000, time.Now().Add(-time.Minute))); err != nil {
		t.Fatal(err)
	}
	wantMade(t, bus, 400)
	if n := bus.Repeats(); n != made {
		t.Errorf("%d came again, want %d", n, made)
	}
	// One that was thought to be dead has nothing to say any more.
	if err := killed.store(t.Context()); !errors.Is(err, sdk.ErrMoved) {
		t.Errorf("the position was stored over another's: %v", err)
	}
}

func TestBusAway(t *testing.T) {
	bus := &fakes.Publisher{}
	bus.Fail(sdk.ErrFull)
	s := mustOpen(t, filepath.Join(t.TempDir(), "position"), `{"rate": 1000, "count": 10}`, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, bus, &fakes.Reporter{}) }()
	fakes.Eventually(t, time.Minute, "it tries", func() bool { return bus.Calls() > 1 })
	bus.Fail(nil)
	fakes.Eventually(t, time.Minute, "all are made", func() bool { return len(bus.Stored()) == 10 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantMade(t, bus, 10)
}

func TestPace(t *testing.T) {
	begun := time.Unix(1000, 0)
	for _, c := range []struct {
		rate  int
		after time.Duration
		made  int64
		due   int64
		wait  time.Duration
	}{
		{1, 0, 0, 1, tick},
		{1, 0, 1, 0, time.Second},
		{1, 2500 * time.Millisecond, 1, 2, tick},
		{50000, time.Hour, 0, 180000001, tick},
		{3, 900 * time.Millisecond, 3, 0, 100 * time.Millisecond},
		{100, -time.Second, 0, 0, time.Second},
	} {
		p := newPace(c.rate, begun)
		p.made = c.made
		if due, wait := p.due(begun.Add(c.after)), p.wait(begun.Add(c.after)); due != c.due || wait != c.wait {
			t.Errorf("%+v: %d are due, and then in %s", c, due, wait)
		}
	}
}

const arrest = `{
  "type": "object", "required": ["id", "at", "person", "offences", "bail"], "additionalProperties": false,
  "$defs": {
    "person": {"type": "object", "required": ["name"], "properties": {
      "name": {"type": "string", "minLength": 3, "maxLength": 5}, "born": {"type": "string", "format": "date"}, "partner": {"$ref": "#/$defs/person"}}},
    "base": {"properties": {"id": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["id"]}
  },
  "allOf": [{"$ref": "#/$defs/base"}],
  "properties": {
    "id": true, "at": {"type": "string", "format": "date-time"}, "person": {"$ref": "#/$defs/person"},
    "offences": {"type": "array", "minItems": 1, "maxItems": 2, "uniqueItems": true, "items": {"enum": ["theft", "arson", "fraud"]}},
    "bail": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5}]},
    "plate": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{2}$", "examples": ["AB12", "CD34"]},
    "kind": {"const": "ARREST"}, "station": {"oneOf": [{"type": "string", "format": "uuid"}, {"type": "boolean"}]}
  }
}`

func TestSchema(t *testing.T) {
	file, bus := filepath.Join(t.TempDir(), "position"), &fakes.Publisher{}
	s := mustOpen(t, file, `{"rate": 50000, "count": 2000}`, arrest)
	if _, err := s.round(t.Context(), bus, newPace(50000, time.Now().Add(-time.Minute))); err != nil {
		t.Fatal(err)
	}
	check, err := steps.CompileSchema(arrest)
	if err != nil {
		t.Fatal(err)
	}
	different := map[string]bool{}
	for _, m := range bus.Stored() {
		if err := check.Check(t.Context(), &sdk.Message{Data: m.Data, Format: sdk.FormatJSON}); err != nil {
			t.Errorf("%s: %v", m.Data, err)
		}
		different[string(m.Data)] = true
	}
	if len(bus.Stored()) != 2000 || len(different) < 1900 {
		t.Errorf("%d messages, %d of them different", len(bus.Stored()), len(different))
	}
	again, err := s.body(7)
	if diff := cmp.Diff(string(bus.Stored()[6].Data), string(again)); diff != "" || err != nil {
		t.Errorf("message 7 is another each time: %v\n%s", err, diff)
	}
}

func TestRefused(t *testing.T) {
	for want, c := range map[string][2]string{
		"rate must be between":         {`{"rate": 50001}`},
		"count must be at least 1":     {`{"count": 0}`},
		"size must be between":         {`{"size": "2Mi"}`},
		"as large as the schema makes": {`{"size": "10"}`, `{"type": "object"}`},
		"give `examples`":              {`{}`, `{"type": "object", "required": ["p"], "properties": {"p": {"type": "string", "pattern": "^[A-Z]{9}$"}}}`},
		"is it recursive":              {`{}`, `{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/a"}}}}}`},
		"no number between":            {`{}`, `{"type": "integer", "minimum": 5, "exclusiveMaximum": 5}`},
		"unknown field":                {`{"speed": 1}`},
	} {
		if _, err := open(t, "", c[0], c[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", c, err, want)
		}
	}
}
