package schedule

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// clock is a time that passes only when somebody sleeps.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	until time.Time
	end   context.CancelFunc
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// sleep lets time pass at once; when the test's time is over, its context ends.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	if !c.now.Before(c.until) {
		c.end()
	}
	return ctx.Err()
}

type run struct {
	options string
	format  string
	created string
	window  time.Duration
	from    string
	lasts   time.Duration
}

func parse(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (r run) ids(t *testing.T, bus sdk.Publisher) {
	t.Helper()
	format, window := r.format, r.window
	if format == "" {
		format = sdk.FormatJSON
	}
	if window == 0 {
		window = 2 * time.Minute
	}
	config := &contract.Config{Source: &contract.Source{Format: format, DeduplicationWindow: contract.Duration(window)}}
	if r.created != "" {
		config.Connector.Created = parse(t, r.created)
	}
	s, err := NewSource(fakes.Runtime(t, config, &fakes.Secrets{}, nil), []byte(r.options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &clock{now: parse(t, r.from), end: cancel}
	c.until = c.now.Add(r.lasts)
	s.(*source).now, s.(*source).sleep = c.Now, c.sleep
	state := &fakes.Reporter{}
	if err := s.Run(ctx, bus, state); err != nil {
		t.Fatal(err)
	}
	if err, reported := state.State(); err != nil || !reported {
		t.Errorf("state %v, %t", err, reported)
	}
}

func ids(bus *fakes.Publisher) []string {
	var out []string
	for _, m := range bus.Stored() {
		out = append(out, m.ID)
	}
	return out
}

func TestTicks(t *testing.T) {
	tests := []struct {
		name string
		run  run
		want []string
	}{
		{"plain", run{options: `{"cron":"*/2 * * * *"}`, created: "2026-01-02T03:00:00Z", from: "2026-01-02T03:04:30Z", lasts: 4 * time.Minute},
			[]string{"2026-01-02T03:04:00Z", "2026-01-02T03:06:00Z", "2026-01-02T03:08:00Z"}},
		{"never before it existed", run{options: `{"cron":"* * * * *"}`, created: "2026-01-02T03:04:20Z", from: "2026-01-02T03:04:30Z", lasts: time.Minute},
			[]string{"2026-01-02T03:05:00Z"}},
		{"at the very second that it was created", run{options: `{"cron":"* * * * *"}`, created: "2026-01-02T03:04:00Z", from: "2026-01-02T03:04:30Z", lasts: time.Minute},
			[]string{"2026-01-02T03:04:00Z", "2026-01-02T03:05:00Z"}},
		{"further back", run{options: `{"cron":"* * * * *","catchUp":"3m"}`, created: "2026-01-01T00:00:00Z", window: time.Hour, from: "2026-01-02T03:04:30Z", lasts: time.Second},
			[]string{"2026-01-02T03:02:00Z", "2026-01-02T03:03:00Z", "2026-01-02T03:04:00Z"}},
		{"at most the window", run{options: `{"cron":"* * * * *","catchUp":"24h"}`, created: "2026-01-01T00:00:00Z", window: 2 * time.Minute, from: "2026-01-02T03:04:30Z", lasts: time.Second},
			[]string{"2026-01-02T03:03:00Z", "2026-01-02T03:04:00Z"}},
		{"not at all", run{options: `{"cron":"* * * * *","catchUp":"0s"}`, created: "2026-01-01T00:00:00Z", from: "2026-01-02T03:04:30Z", lasts: 45 * time.Second},
			[]string{"2026-01-02T03:05:00Z"}},
		{"in a time zone", run{options: `{"cron":"0 6 * * *","timeZone":"Europe/London"}`, created: "2026-07-01T00:00:00Z", from: "2026-07-02T00:00:00Z", lasts: 24 * time.Hour},
			[]string{"2026-07-02T05:00:00Z"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bus := &fakes.Publisher{}
			test.run.ids(t, bus)
			if diff := cmp.Diff(test.want, ids(bus)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReplicasMakeOneMessage(t *testing.T) {
	bus := &fakes.Publisher{}
	first := run{options: `{"cron":"@every 90s"}`, created: "2026-01-02T03:00:00Z", from: "2026-01-02T03:00:00Z", lasts: 10 * time.Minute}
	first.ids(t, bus)
	before := ids(bus)
	second := first
	second.from = "2026-01-02T03:00:17Z" // another pod, started later
	second.ids(t, bus)
	if diff := cmp.Diff(before, ids(bus)[:len(before)]); diff != "" || len(ids(bus)) > len(before)+1 {
		t.Errorf("%s %v", diff, ids(bus))
	}
}

// failing is a bus that is away for the first calls.
type failing struct {
	fakes.Publisher
	left int
}

func (f *failing) Publish(ctx context.Context, messages ...*sdk.Message) error {
	if f.left > 0 {
		f.left--
		return errors.New("no servers")
	}
	return f.Publisher.Publish(ctx, messages...)
}

func TestNothingIsLostWhileTheBrokerIsAway(t *testing.T) {
	bus := &failing{left: 200}
	run{options: `{"cron":"* * * * *"}`, created: "2026-01-02T03:00:00Z", from: "2026-01-02T03:00:30Z", lasts: 30 * time.Minute}.ids(t, bus)
	var want []string
	for minute := 0; minute <= 30; minute++ {
		want = append(want, fmt.Sprintf("2026-01-02T03:%02d:00Z", minute))
	}
	if diff := cmp.Diff(want, ids(&bus.Publisher)); diff != "" {
		t.Error(diff)
	}
	if bus.left != 0 {
		t.Errorf("%d failures are left: the test did not last long enough", bus.left)
	}
}

func TestBodies(t *testing.T) {
	const options = `{"cron":"* * * * *"}`
	for _, test := range []struct{ format, options, data, contentType string }{
		{sdk.FormatJSON, options, `{"scheduled":"2026-01-02T03:04:00Z"}`, "application/json"},
		{sdk.FormatText, options, "2026-01-02T03:04:00Z", "text/plain; charset=utf-8"},
		{sdk.FormatXML, options, "<scheduled>2026-01-02T03:04:00Z</scheduled>", "application/xml"},
		{sdk.FormatJSON, `{"cron":"* * * * *","body":"{\"do\":\"it\"}"}`, `{"do":"it"}`, "application/json"},
		{sdk.FormatBinary, `{"cron":"* * * * *","body":"x"}`, "x", "application/octet-stream"},
	} {
		bus := &fakes.Publisher{}
		run{options: test.options, format: test.format, created: "2026-01-02T03:00:00Z", from: "2026-01-02T03:04:30Z", lasts: time.Second}.ids(t, bus)
		m := bus.Stored()[0]
		if string(m.Data) != test.data || m.ContentType != test.contentType || !m.Time.Equal(parse(t, "2026-01-02T03:04:00Z")) {
			t.Errorf("%s: %q %q %s", test.format, m.Data, m.ContentType, m.Time)
		}
	}
}

func TestOptions(t *testing.T) {
	config := &contract.Config{Source: &contract.Source{Format: sdk.FormatJSON}}
	for _, options := range []string{`{}`, `{"cron":"x"}`, `{"cron":"* * * * *","timeZone":"x"}`, `{"cron":"* * * * *","body":"{"}`, `{"cron":"* * * * *","catchUp":"x"}`, `{"cron":"* * * * *","more":1}`} {
		if _, err := NewSource(fakes.Runtime(t, config, &fakes.Secrets{}, nil), []byte(options)); err == nil {
			t.Errorf("%s is taken", options)
		}
	}
}

func TestRealClock(t *testing.T) {
	config := &contract.Config{Source: &contract.Source{Format: sdk.FormatJSON, DeduplicationWindow: contract.Duration(time.Minute)}}
	config.Connector.Created = time.Now()
	s, err := NewSource(fakes.Runtime(t, config, &fakes.Secrets{}, nil), []byte(`{"cron":"@every 1s"}`))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bus, done := &fakes.Publisher{}, make(chan error, 1)
	go func() { done <- s.Run(ctx, bus, &fakes.Reporter{}) }()
	fakes.Eventually(t, 10*time.Second, "two ticks", func() bool { return len(bus.Stored()) >= 2 })
	// A tick that is being published when the pod ends is settled.
	release := bus.Hold()
	calls := bus.Calls()
	fakes.Eventually(t, 10*time.Second, "a tick is being published", func() bool { return bus.Calls() > calls })
	before := len(bus.Stored())
	cancel()
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(bus.Stored()) != before+1 {
		t.Error("the tick under way was dropped")
	}
}
