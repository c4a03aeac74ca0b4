package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
	"github.com/metip/metip/test/bench/record"
)

// What a call over the bus may add to calling the back end directly.
const (
	targetAddedP50 = 1
	targetAddedP99 = 3
)

const exchangeTimeout = 10 * time.Second

// exchange is a source whose requests a service answers, with this process's back end behind it.
type exchange struct {
	url             string
	source, service *process
	broker          *server
}

// startBackEnd runs the system that is called: it answers each request with 1 KiB.
func startBackEnd() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	answer := record.Body(7)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(answer)
	})}
	go func() { _ = server.Serve(l) }()
	return "http://" + l.Addr().String() + "/", func() { _ = server.Close() }, nil
}

// startExchange starts the connectors of a call as the operator would.
func startExchange(ctx context.Context, s *server, binary, to, profile string) (x *exchange, err error) {
	f := loopback.CallFlow{Integration: "calls", Source: "calls-in", Route: "calls", Service: "calls-out"}
	users, err := s.broker.PrepareCall(f, exchangeTimeout)
	if err != nil {
		return nil, err
	}
	names := loopback.Flow{Integration: f.Integration}
	source, service := configOf(s, names, f.Source), configOf(s, names, f.Service)
	source.Source = &contract.Source{
		System:    contract.System{Type: "http", Options: json.RawMessage(`{"path": "/", "maxBodySize": "1Mi", "exchange": "RequestReply"}`)},
		EventType: f.Source, Format: "JSON", DeduplicationWindow: contract.Duration(loopback.DeduplicationWindow),
		Calls: []contract.Call{{Route: f.Route, UID: f.Route, Generation: 1, Integration: f.Integration, Service: f.Service, Timeout: contract.Duration(exchangeTimeout)}},
	}
	options, err := json.Marshal(map[string]string{"url": to})
	if err != nil {
		return nil, err
	}
	service.Service = &contract.Service{System: contract.System{Type: "http", Options: options}, MaxConcurrent: 64, Timeout: contract.Duration(exchangeTimeout)}
	x = &exchange{broker: s}
	if x.service, _, err = startConnector(ctx, s, service, users.Service, binary, profile); err != nil {
		return nil, err
	}
	var address string
	if x.source, address, err = startConnector(ctx, s, source, users.Source, binary, profile); err != nil {
		x.stop()
		return nil, err
	}
	x.url = "http://" + address + "/"
	return x, nil
}

func (x *exchange) stop() {
	x.source.stop()
	x.service.stop()
}

// calls of one load: how long each took, sorted, and how many were not answered 200.
type calls struct {
	took   []time.Duration
	failed int
	lasted time.Duration
}

// callLoop calls the address. With a rate, calls are due at its pace whatever the answers, and what waits for a free connection counts;
// without, each connection calls as soon as it was answered.
func callLoop(ctx context.Context, address string, connections, rate int, duration time.Duration) (c calls, err error) {
	all, err := dialAll(ctx, address, "application/json", connections)
	if err != nil {
		return c, err
	}
	defer all.close()
	due := make(chan time.Time, int(duration.Seconds()*float64(max(rate, 1)))+1)
	began := time.Now()
	go func() {
		defer close(due)
		for n := 0; rate > 0 && ctx.Err() == nil; n++ {
			at := began.Add(time.Duration(n) * time.Second / time.Duration(rate))
			if at.Sub(began) >= duration {
				return
			}
			time.Sleep(time.Until(at))
			due <- time.Now()
		}
	}()
	body := record.Body(1)
	var mu sync.Mutex
	err = all.each(func(k *caller) error {
		var took []time.Duration
		failed := 0
		call := func(sent time.Time) error {
			status, err := k.post(body)
			took = append(took, time.Since(sent))
			if status != http.StatusOK {
				failed++
			}
			return err
		}
		if rate > 0 {
			for sent := range due {
				if err := call(sent); err != nil {
					return err
				}
			}
		} else {
			for time.Since(began) < duration && ctx.Err() == nil {
				if err := call(time.Now()); err != nil {
					return err
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		c.took, c.failed = append(c.took, took...), c.failed+failed
		return ctx.Err()
	})
	c.lasted = time.Since(began)
	slices.Sort(c.took)
	if err == nil && (c.failed > 0 || len(c.took) == 0) {
		err = fmt.Errorf("%d of %d calls were not answered 200", c.failed, len(c.took))
	}
	return c, err
}

// benchExchange measures calling a back end over the bus beside calling it directly.
func benchExchange(ctx context.Context, dir string, o options, figures *results) (err error) {
	var b binaries
	packages := map[*string]string{&b.natsServer: packageNATSServer, &b.connector: packageConnector}
	profile := ""
	if o.profile != "" {
		packages[&b.connector], profile = packageProfiled, filepath.Join(o.profile, "exchange")
	}
	dir = filepath.Join(dir, "exchange")
	for _, folder := range []string{dir, profile} {
		if folder != "" {
			err = errors.Join(err, os.MkdirAll(folder, 0o700))
		}
	}
	if err = errors.Join(err, build(ctx, dir, packages)); err != nil {
		return err
	}
	to, stop, err := startBackEnd()
	if err != nil {
		return err
	}
	defer stop()
	s, err := startServer(ctx, dir, "broker", b.natsServer, true)
	if err != nil {
		return err
	}
	defer s.stop()
	x, err := startExchange(ctx, s, b.connector, to, profile)
	if err != nil {
		return err
	}
	defer x.stop()
	for _, address := range []string{to, x.url} {
		if _, err := callLoop(ctx, address, o.pipeline.connections, 0, o.pipeline.warmUp); err != nil {
			return fmt.Errorf("warm up: %w\n%s\n%s", err, x.source.tail(), x.service.tail())
		}
	}
	return x.measure(ctx, o, to, figures)
}

// measure both ways in turn, at a steady rate and as fast as goes.
func (x *exchange) measure(ctx context.Context, o options, to string, figures *results) error {
	const direct, bus = "direct", "bus"
	p50, p99, rates := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	var used [3][]float64
	for range o.pipeline.rounds {
		for _, way := range []struct{ name, address string }{{direct, to}, {bus, x.url}} {
			c, err := callLoop(ctx, way.address, o.pipeline.connections, o.pipeline.rate, o.pipeline.open)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s\n%s", way.name, err, x.source.tail(), x.service.tail())
			}
			p50[way.name] = append(p50[way.name], milliseconds(percentile(c.took, .5)))
			p99[way.name] = append(p99[way.name], milliseconds(percentile(c.took, .99)))
			_, _ = fmt.Fprintf(os.Stderr, "  calls %-6s %d/s: p50 %.2f ms, p99 %.2f ms\n", way.name, o.pipeline.rate, milliseconds(percentile(c.took, .5)), milliseconds(percentile(c.took, .99)))
			before, err := x.usage()
			if err != nil {
				return err
			}
			if c, err = callLoop(ctx, way.address, o.pipeline.connections, 0, o.pipeline.closed); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			after, err := x.usage()
			if err != nil {
				return err
			}
			rates[way.name] = append(rates[way.name], float64(len(c.took))/c.lasted.Seconds())
			for i := range used {
				if way.name == bus {
					used[i] = append(used[i], float64((after[i]-before[i]).Microseconds())/float64(len(c.took)))
				}
			}
		}
	}
	open, closed := fmt.Sprintf("open %d/s", o.pipeline.rate), fmt.Sprintf("closed %d connections", o.pipeline.connections)
	const flow = "http->service->http"
	figures.add(flow+", direct, "+open, "p50", median(p50[direct]), "ms", lower)
	figures.add(flow+", direct, "+open, "p99", median(p99[direct]), "ms", lower)
	figures.add(flow+", metip, "+open, "p50", median(p50[bus]), "ms", lower)
	figures.add(flow+", metip, "+open, "p99", median(p99[bus]), "ms", lower)
	figures.add(flow+", metip, "+open, "added p50", median(p50[bus])-median(p50[direct]), "ms", lower).aim(targetAddedP50)
	figures.add(flow+", metip, "+open, "added p99", median(p99[bus])-median(p99[direct]), "ms", lower).aim(targetAddedP99)
	figures.add(flow+", direct, "+closed, "answered", median(rates[direct]), "calls/s", higher)
	figures.add(flow+", metip, "+closed, "answered", median(rates[bus]), "calls/s", higher)
	for i, name := range []string{"cpu source", "cpu service", "cpu broker"} {
		figures.add(flow+", metip, "+closed, name, median(used[i]), "us/call", lower)
	}
	return x.memory(flow+", metip, "+closed, figures)
}

// usage of source, service and broker.
func (x *exchange) usage() (u [3]time.Duration, err error) {
	for i, p := range []*process{x.source, x.service, x.broker.process} {
		if u[i], err = p.cpu(); err != nil {
			return u, err
		}
	}
	return u, nil
}

func (x *exchange) memory(flow string, figures *results) error {
	for _, p := range []struct {
		name string
		*process
	}{{"rss source", x.source}, {"rss service", x.service}} {
		peak, err := p.peak()
		if err != nil {
			return err
		}
		figures.add(flow, p.name, mebibytes(peak), "MiB", lower)
	}
	return nil
}
