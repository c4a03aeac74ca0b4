package replay

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/refs"
)

// scope is what the phases of a pass share.
type scope struct {
	replay *v1alpha1.Replay
	run    *run
	now    time.Time

	route       *v1alpha1.Route
	destination v1alpha1.ObjectName
	area        refs.Area
	// durables of the destination.
	durables []bus.DurableState

	stage stage
	// next look; zero means when something happens.
	next time.Duration
}

// stage that a Replay is in at the end of a pass.
type stage int

const (
	stageWaiting stage = iota
	stageCounting
	stageReplaying
	stageDelivering
	stageComplete
)

// finished tells whether a Replay is complete or has failed.
func finished(o *v1alpha1.Replay) bool {
	return meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionComplete) ||
		meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionFailed)
}

func (s *scope) suspended() bool { return compile.Suspended(s.replay.Spec.Suspend) }

func (s *scope) dryRun() bool { return s.replay.Spec.DryRun != nil && *s.replay.Spec.DryRun }

// removes tells whether dead letters go once they were copied.
func (s *scope) removes() bool {
	d := s.replay.Spec.From.DeadLetters
	return d != nil && (d.Keep == nil || !*d.Keep)
}

// buildReplay is what package bus is told of the Replay.
func buildReplay(o *v1alpha1.Replay, route *v1alpha1.Route, destination v1alpha1.ObjectName) bus.Replay {
	out := bus.Replay{
		Namespace: o.Namespace, Integration: string(route.Spec.IntegrationRef.Name), Route: route.Name, Destination: string(destination),
		Name: o.Name, UID: o.UID, Filters: compile.EventFilters(route),
	}
	span := func(t *v1alpha1.ReplayTime) {
		if t == nil {
			return
		}
		if out.Since = t.From.Time; t.To != nil {
			out.Until = t.To.Time
		}
	}
	from := o.Spec.From
	span(from.Time)
	if q := from.Sequences; q != nil {
		if out.First = uint64(q.First); q.Last != nil {
			out.Last = uint64(*q.Last)
		}
	}
	ids := from.IDs
	if d := from.DeadLetters; d != nil {
		out.Dead, out.Reasons, ids = true, d.Reasons, d.IDs
		span(d.Time)
	}
	for _, id := range ids {
		out.IDs = append(out.IDs, string(id))
	}
	return out
}

// planOf the status.
func planOf(p *v1alpha1.ReplayPlan) bus.ReplayPlan {
	return bus.ReplayPlan{
		Stream: p.Stream, Created: p.StreamCreated.Time, First: uint64(p.FirstSequence), Last: uint64(p.LastSequence), After: uint64(p.CopiesAfter),
	}
}
