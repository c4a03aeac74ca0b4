package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
	"github.com/metip/metip/test/bench/record"
)

// targetBulk is the share of what raw publishing stores that a source's records have to reach.
const targetBulk = 0.8

// bulk is a process of test/bench/bulk: the engine with a source or a sink of its own, or nats.go by itself.
type bulk struct {
	*process
	name    string
	control string
}

// ran is what such a process has done.
type ran struct {
	Messages    int64 `json:"messages"`
	Nanoseconds int64 `json:"nanoseconds"`
}

func (r ran) rate() float64 { return perSecond(r.Messages, time.Duration(r.Nanoseconds)) }

// startBulk starts `bulk <role>` as connector c of the broker, whose user is given, and waits until it is ready.
func startBulk(ctx context.Context, s *server, role, binary, profile string, c *contract.Config, user []byte, more ...string) (*bulk, error) {
	listener, err := freeAddress()
	if err != nil {
		return nil, err
	}
	health, err := freeAddress()
	if err != nil {
		return nil, err
	}
	name := c.Connector.Name + "-" + role
	secrets := filepath.Join(s.dir, name+"-secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for suffix, data := range map[string][]byte{"json": raw, "creds": user, "ca": s.broker.CA()} {
		if files[suffix], err = s.file(name+"."+suffix, data); err != nil {
			return nil, err
		}
	}
	args := []string{role, "-control", listener, "-creds", files["creds"]}
	probe := "http://" + listener + "/readyz"
	if role == "source" || role == "sink" {
		args = append(args, "-config", files["json"], "-system-dir", secrets, "-health-addr", health)
		probe = "http://" + health + "/readyz"
	} else {
		args = append(args, "-nats", s.url, "-ca", files["ca"], "-inbox", contract.InboxPrefix(loopback.Namespace, c.Connector.Name))
	}
	if profile != "" {
		args = append(args, "-profile", filepath.Join(profile, name))
	}
	p, err := start(ctx, s.dir, name, probe, binary, append(args, more...)...)
	return &bulk{process: p, name: role, control: "http://" + listener}, err
}

// ask the process.
func (b *bulk) ask(ctx context.Context, method, path string) (r ran, err error) {
	q, err := http.NewRequestWithContext(ctx, method, b.control+path, nil)
	if err != nil {
		return r, err
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, b.tail())
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		return r, err
	}
	if a.StatusCode != http.StatusOK {
		return r, fmt.Errorf("%s %s: %s: %s\n%s", b.name, path, a.Status, strings.TrimSpace(string(body)), b.tail())
	}
	return r, json.Unmarshal(body, &r)
}

// publish so many messages, or for so long.
func (b *bulk) publish(ctx context.Context, n *numbers, messages int, lasts time.Duration) (ran, error) {
	// Nobody publishes more than this in a run; ids are the source's own.
	first := n.reserve(min(messages, 100_000_000))
	r, err := b.ask(ctx, http.MethodPost, fmt.Sprintf("/run?first=%d&messages=%d&lasts=%s", first, messages, lasts))
	if err == nil && r.Messages == 0 {
		err = fmt.Errorf("%s stored nothing\n%s", b.name, b.tail())
	}
	return r, err
}

// sourceOf a flow, with a system of the process itself.
func sourceOf(s *server, f loopback.Flow) *contract.Config {
	c := configOf(s, f, f.Source)
	c.Source = &contract.Source{
		System:    contract.System{Type: "generator", Options: json.RawMessage(`{}`)},
		EventType: f.Source, Format: "JSON", DeduplicationWindow: contract.Duration(loopback.DeduplicationWindow),
	}
	return c
}

// profileDir of a flow, made; empty where no profiles are wanted.
func (o options) profileDir(flow string) (string, error) {
	if o.profile == "" {
		return "", nil
	}
	dir := filepath.Join(o.profile, flow)
	return dir, os.MkdirAll(dir, 0o700)
}

// benchBulk measures a source that has many records at hand beside what nats.go does with the same: on one server atomic batches, on three
// asynchronous publishing; both flush the disk before they confirm.
func benchBulk(ctx context.Context, dir string, o options, figures *results) error {
	var b binaries
	if err := build(ctx, dir, map[*string]string{&b.natsServer: packageNATSServer, &b.bulk: packageBulk}); err != nil {
		return err
	}
	n := &numbers{}
	for _, x := range []struct {
		name, raw, text string
		start           func(context.Context, string, string, string, bool) (*server, error)
	}{
		{"one server", "batches", "raw atomic batches", startServer},
		{"three servers", "async", "raw asynchronous publishing", startCluster},
	} {
		dir := filepath.Join(dir, "bulk-"+x.raw)
		profile, err := o.profileDir("bulk-" + x.raw)
		if err != nil {
			return err
		}
		s, err := x.start(ctx, dir, "broker", b.natsServer, true)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(os.Stderr, "bulk source, %s\n", x.name)
		err = bulkOn(ctx, s, o, b.bulk, profile, x.raw, n, func(metip, raw *bulkSamples) {
			rawFlow, flow := "generator->stream, "+x.text+", "+x.name+", Fsync", "generator->stream, metip, "+x.name+", Fsync"
			raw.report(figures, rawFlow, nil)
			metip.report(figures, flow, func(r *Result) { r.against(rawFlow, median(raw.rates)).aim(targetBulk) })
			figures.add(flow, "rss source loaded", mebibytes(metip.peak), "MiB", lower).aim(targetLoadedMiB)
		})
		s.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	return nil
}

// bulkSamples of one way to publish, or to consume.
type bulkSamples struct {
	rates, cpu, broker []float64
	peak               int64
}

func (b *bulkSamples) add(r ran, cpu, broker time.Duration) {
	b.rates = append(b.rates, r.rate())
	b.cpu = append(b.cpu, float64(cpu.Microseconds())/float64(r.Messages))
	b.broker = append(b.broker, float64(broker.Microseconds())/float64(r.Messages))
}

// report the medians; rate is given the figure of the rate.
func (b *bulkSamples) report(figures *results, flow string, rate func(*Result)) {
	r := figures.add(flow, "rate", median(b.rates), "msg/s", higher)
	if rate != nil {
		rate(r)
	}
	figures.add(flow, "cpu client", median(b.cpu), "us/msg", lower)
	figures.add(flow, "cpu broker", median(b.broker), "us/msg", lower)
}

// bulkOn measures the engine's source and the raw one in turn on a broker.
func bulkOn(ctx context.Context, s *server, o options, binary, profile, rawRole string, n *numbers, report func(metip, raw *bulkSamples)) error {
	f := flowOf("bulk")
	users, err := s.broker.Prepare(ctx, loopback.DefaultLimits(), f)
	if err != nil {
		return err
	}
	c := sourceOf(s, f)
	metip, err := startBulk(ctx, s, "source", binary, profile, c, users.Source)
	if err != nil {
		return err
	}
	defer metip.stop()
	raw, err := startBulk(ctx, s, rawRole, binary, profile, c, users.Source,
		"-subject", contract.EventSubject(loopback.Namespace, f.Integration, f.Source, 0, f.Source))
	if err != nil {
		return err
	}
	defer raw.stop()
	samples := map[*bulk]*bulkSamples{metip: {}, raw: {}}
	for round := range o.pipeline.rounds + 1 {
		for _, p := range []*bulk{raw, metip} {
			lasts := o.bulk.lasts
			if round == 0 { // warms up
				lasts = min(lasts, time.Second)
			}
			r, cpu, broker, err := metered(s, p, func() (ran, error) { return p.publish(ctx, n, math.MaxInt32, lasts) })
			if err != nil {
				return err
			}
			if err := s.purge(ctx, f); err != nil {
				return err
			}
			if round == 0 {
				continue
			}
			_, _ = fmt.Fprintf(os.Stderr, "  round %d %-8s %6.0f msg/s  (%d messages)\n", round, p.name, r.rate(), r.Messages)
			samples[p].add(r, cpu, broker)
		}
	}
	if samples[metip].peak, err = metip.peak(); err != nil {
		return err
	}
	report(samples[metip], samples[raw])
	return nil
}

// metered is what a process and its broker used while do ran.
func metered(s *server, p *bulk, do func() (ran, error)) (r ran, cpu, broker time.Duration, err error) {
	var at [2][2]time.Duration
	for i := range at {
		if i == 1 {
			if r, err = do(); err != nil {
				return r, 0, 0, err
			}
		}
		if at[i][0], err = p.cpu(); err != nil {
			return r, 0, 0, err
		}
		if at[i][1], err = s.cpu(); err != nil {
			return r, 0, 0, err
		}
	}
	return r, at[1][0] - at[0][0], at[1][1] - at[0][1], nil
}

// filterStep is the filter that measured Routes have: it looks at every body and lets it pass.
func filterStep() contract.Step { return contract.Step{Name: "filter", Filter: record.Filter} }
