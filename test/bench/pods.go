package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

// manyRoutes end in one pod.
const manyRoutes = 100

// benchPods measures a pod that many Routes with a filter and a transform end in, while nothing flows.
func benchPods(ctx context.Context, dir string, o options, figures *results) error {
	var b binaries
	if err := build(ctx, dir, map[*string]string{&b.natsServer: packageNATSServer, &b.connector: packageConnector}); err != nil {
		return err
	}
	s, err := startServer(ctx, filepath.Join(dir, "pods"), "broker", b.natsServer, true)
	if err != nil {
		return err
	}
	defer s.stop()
	t, err := startTarget()
	if err != nil {
		return err
	}
	defer func() { _ = t.server.Close() }()
	var flows []loopback.Flow
	for i := range manyRoutes {
		flows = append(flows, loopback.Flow{
			Integration: "pods", Source: fmt.Sprintf("in-%02d", i), Route: fmt.Sprintf("route-%02d", i), Destination: "out", Sink: "out",
		})
	}
	users, err := s.broker.Prepare(ctx, loopback.DefaultLimits(), flows[0], flows[1:]...)
	if err != nil {
		return err
	}
	url, err := json.Marshal(map[string]string{"url": t.url})
	if err != nil {
		return err
	}
	sink := configOf(s, flows[0], "out")
	sink.Sink = &contract.Sink{System: contract.System{Type: "http", Options: url}}
	for i, f := range flows {
		sink.Sink.Routes = append(sink.Sink.Routes, contract.Route{
			Name: f.Route, UID: f.Route, Generation: 1, Destination: f.Destination, Integration: f.Integration, Stream: f.Stream(), Durable: f.Durable(),
			Steps: []contract.Step{
				{Name: "filter", Filter: fmt.Sprintf("data.kind == 'kind-%d' && data.weight > %d", i, i)},
				{Name: "steps[0]", JQ: fmt.Sprintf("{id: .arrestId, name: .person.name, kind: %d, at}", i)},
			},
			Delivery: loopback.Delivery(),
		})
	}
	_, _ = fmt.Fprintf(os.Stderr, "a pod with %d Routes\n", manyRoutes)
	p, _, err := startConnector(ctx, s, sink, users.Sink, b.connector, "")
	if err != nil {
		return err
	}
	defer p.stop()
	if err := wait(ctx, o.pods); err != nil {
		return err
	}
	before, err := p.cpu()
	if err != nil {
		return err
	}
	if err := wait(ctx, o.pods); err != nil {
		return err
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	rss, err := p.rss()
	if err != nil {
		return err
	}
	flow := fmt.Sprintf("http sink, %d Routes, idle", manyRoutes)
	figures.add(flow, "rss", mebibytes(rss), "MiB", lower).aim(targetLoadedMiB)
	figures.add(flow, "start to ready", milliseconds(p.ready), "ms", lower).aim(targetReadyMS)
	figures.add(flow, "cpu", 100*(after-before).Seconds()/o.pods.Seconds(), "% of a core", lower)
	return nil
}

// restFor is how long pods that are to be idle come to rest, and are watched.
const restFor = 5 * time.Second
