package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/metip/metip/controllers/loopback"
)

// benchReplay measures how fast the operator counts and copies what a Replay covers, without a rate, by its own code on a real broker.
func benchReplay(ctx context.Context, dir string, o options, figures *results) error {
	var b binaries
	if err := build(ctx, dir, map[*string]string{&b.natsServer: packageNATSServer, &b.bulk: packageBulk}); err != nil {
		return err
	}
	s, err := startServer(ctx, filepath.Join(dir, "replay"), "broker", b.natsServer, true)
	if err != nil {
		return err
	}
	defer s.stop()
	f := flowOf("replay")
	users, err := s.broker.Prepare(ctx, loopback.DefaultLimits(), f)
	if err != nil {
		return err
	}
	source, err := startBulk(ctx, s, "source", b.bulk, "", sourceOf(s, f), users.Source)
	if err != nil {
		return err
	}
	defer source.stop()
	n := &numbers{}
	var counted, copied []float64
	for round := range o.pipeline.rounds {
		if _, err := source.publish(ctx, n, o.bulk.backlog, time.Minute); err != nil {
			return err
		}
		done, err := s.broker.Replay(ctx, f, fmt.Sprintf("bench-%d", round))
		if err != nil {
			return err
		}
		if want := uint64(o.bulk.backlog); done.Matched != want || done.Sent != want {
			return fmt.Errorf("of %d messages %d were counted and %d copied", want, done.Matched, done.Sent)
		}
		counted = append(counted, perSecond(int64(done.Matched), done.Counting))
		copied = append(copied, perSecond(int64(done.Sent), done.Copying))
		_, _ = fmt.Fprintf(os.Stderr, "replay round %d: counts %6.0f msg/s, copies %6.0f msg/s\n", round+1, counted[round], copied[round])
		if err := s.purge(ctx, f); err != nil {
			return err
		}
	}
	flow := fmt.Sprintf("replay of %d messages, one server, Fsync", o.bulk.backlog)
	figures.add(flow, "counted", median(counted), "msg/s", higher)
	figures.add(flow, "copied", median(copied), "msg/s", higher)
	return nil
}
