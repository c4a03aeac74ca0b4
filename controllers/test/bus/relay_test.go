package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

func isFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == 10077
}

// relay does by hand what the engine's does: it publishes each message again, then acknowledges it, and says so while the stream is full.
type relay struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	sequence uint64
	full     bool
	made     atomic.Int64
}

func (r *relay) report(full bool) {
	r.full, r.sequence = full, r.sequence+1
	state := contract.State{OK: !full}
	if full {
		state.Reason = contract.ReasonStreamFull
	}
	data, _ := json.Marshal(contract.Report{ConfigHash: "h", Sequence: r.sequence, System: state, Bus: contract.State{OK: true}})
	_ = r.nc.Publish(contract.StatusSubject("ns", contract.RelayName("intg"), "pod"), data)
}

// take one message; false when the stream has no room for what it becomes.
func (r *relay) take(ctx context.Context, m jetstream.Msg) bool {
	if strings.HasPrefix(m.Subject(), "mark.") {
		return m.Ack() == nil
	}
	id := contract.RelayMessageID("relay", "db", m.Headers().Get("Nats-Msg-Id"), 0)
	_, err := r.js.Publish(ctx, contract.EventSubject("ns", "intg", contract.RelayToken, 0, "y"), m.Data(), jetstream.WithMsgID(id))
	if err != nil {
		if full := isFull(err); full != r.full {
			r.report(full)
		}
		return false
	}
	if r.full {
		r.report(false)
	}
	r.made.Add(1)
	return m.Ack() == nil
}

// relayProbe is how often the relay tries while the stream is full: seldom enough to miss room that is there for a moment.
const relayProbe = 500 * time.Millisecond

// A stream is full of what only the relay can take away, and the relay needs room for that. Sources press on all the time, as
// politely as the engine's do: after a full bus they try one at a time until that has gone well for a while.
func TestFullStreamLetsItsRelayGoOn(t *testing.T) {
	for what, size := range map[string]int{"small messages": 2000, "messages that leave a gap below the limit": 60 << 10} {
		t.Run(what, func(t *testing.T) { fullStreamLetsItsRelayGoOn(t, size) })
	}
}

func fullStreamLetsItsRelayGoOn(t *testing.T, size int) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	s.Retention, s.MaxBytes = 0, 8<<20
	f := newFlow(t, b, func(p *bus.Params) { p.TrimInterval = 400 * time.Millisecond }, s)
	if err := f.session.DeleteDurable(t.Context(), "ns_intg", "ns_route_db"); err != nil {
		t.Fatal(err)
	}
	d := durable("ns", "intg", "relay", "db", "src")
	d.RouteUID, d.AckWait = "r-2", 5*time.Second
	f.ensureDurable(t, d)
	js, subject := edgeJetStream(t, f.source), contract.EventSubject("ns", "intg", "src", 0, "x")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var accepted atomic.Int64
	publish := func() error {
		_, err := js.Publish(ctx, subject, make([]byte, size), jetstream.WithMsgID(fmt.Sprint(accepted.Load())))
		if err == nil {
			accepted.Add(1)
		}
		return err
	}
	for !isFull(publish()) {
		if accepted.Load() > 10000 {
			t.Fatal("never full")
		}
	}
	backlog := accepted.Load()
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { // sources
		const probe, settle = 100 * time.Millisecond, 500 * time.Millisecond
		var since time.Time
		for ctx.Err() == nil {
			switch err := publish(); {
			case err != nil:
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			}
			if since.IsZero() || time.Since(since) < settle {
				time.Sleep(probe)
			}
		}
	})
	nc := f.user(t, contract.RelayName("intg"), contract.RelayPermissions("ns", "intg", []contract.SinkDestination{{Integration: "intg", Route: "relay", Destination: "db"}}))
	r := &relay{nc: nc, js: edgeJetStream(t, nc)}
	consumer, err := f.admin.Consumer(t.Context(), "ns_intg", "ns_relay_db")
	if err != nil {
		t.Fatal(err)
	}
	work.Go(func() {
		for ctx.Err() == nil {
			batch, err := consumer.Fetch(50, jetstream.FetchMaxWait(time.Second))
			if err != nil {
				continue
			}
			for m := range batch.Messages() {
				for !r.take(ctx, m) && ctx.Err() == nil {
					_ = m.InProgress()
					time.Sleep(relayProbe)
				}
			}
		}
	})
	highest := int64(0)
	eventually(t, 90*time.Second, func() string {
		highest = max(highest, f.stream(t).Config.MaxBytes)
		if made := r.made.Load(); made < 3*backlog {
			return fmt.Sprintf("the relay has passed on %d messages, want three times the %d that filled the stream; %d were accepted", made, backlog, accepted.Load())
		}
		return ""
	})
	stop()
	work.Wait()
	if limit := s.MaxBytes + 2*(contract.MaxMessageSize+contract.MaxHeaderSize); highest > limit {
		t.Errorf("the stream was raised to %d bytes, more than %d", highest, limit)
	}
	if highest == s.MaxBytes {
		t.Error("the stream was never raised: the test shows nothing")
	}
	t.Logf("%d messages filled the stream; %d passed on, %d accepted, at most %d bytes", backlog, r.made.Load(), accepted.Load(), highest)
}
