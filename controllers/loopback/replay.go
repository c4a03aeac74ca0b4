package loopback

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
)

// replayRun is how long the controller of Replays counts or copies at a time.
const replayRun = 2 * time.Second

// Replayed is what a Replay has done, and how long each part took.
type Replayed struct {
	Matched, Sent     uint64
	Counting, Copying time.Duration
}

// Replay everything that a flow's source has published to its destination, as fast as goes, in the runs that the controller of Replays makes,
// but for its writes of the status between them.
func (b *Broker) Replay(ctx context.Context, f Flow, name string) (done Replayed, err error) {
	session, err := b.registry.Session(b.name())
	if err != nil {
		return done, err
	}
	r := bus.Replay{
		Namespace: Namespace, Integration: f.Integration, Route: f.Route, Destination: f.Destination, Name: name, UID: types.UID(name),
		Filters: []string{contract.EventFilter(Namespace, f.Integration, f.Source, "")},
	}
	plan, err := session.PlanReplay(ctx, r)
	if err != nil {
		return done, err
	}
	begun := time.Now()
	var count bus.ReplayCount
	for counted := false; !counted; {
		if counted, err = session.CountReplay(ctx, r, plan, &count, time.Now().Add(replayRun)); err != nil {
			return done, err
		}
	}
	done.Matched, done.Counting = count.Matched, time.Since(begun)
	begun = time.Now()
	progress := bus.ReplayProgress{Position: plan.First - 1, LastCopy: plan.After}
	if err := session.RecoverReplay(ctx, r, plan, &progress); err != nil {
		return done, err
	}
	var pace bus.Pace
	for progress.Position < plan.Last {
		if err := session.CopyReplay(ctx, r, plan, &progress, &pace, time.Now().Add(replayRun)); err != nil {
			return done, err
		}
	}
	done.Sent, done.Copying = progress.Sent, time.Since(begun)
	return done, nil
}
