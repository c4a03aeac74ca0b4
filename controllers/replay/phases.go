package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
)

const (
	// runFor is how long one pass works. Its progress is written down then, so that two seconds' work is what an operator that is killed can
	// leave unwritten.
	runFor = 2 * time.Second
	// goOn is when the next pass begins at the latest. The write of the status begins it sooner.
	goOn = 500 * time.Millisecond
	// fullWait is how long a Replay waits for room.
	fullWait = 5 * time.Second
	// The destination is asked often at first whether it has taken everything, and seldom later.
	deliveringSoon, deliveringLate = 2 * time.Second, 15 * time.Second
	deliveringLong                 = time.Minute
)

func (r *Reconciler) phases() []reconcile.Phase[*scope] {
	out := []reconcile.Phase[*scope]{{Condition: v1alpha1.ConditionAccepted, Run: r.reconcileFinished}}
	for _, p := range []reconcile.Phase[*scope]{
		{Condition: v1alpha1.ConditionResolvedRefs, Run: r.observe},
		{Condition: v1alpha1.ConditionProgrammed, Run: r.observeTarget},
		{Condition: v1alpha1.ConditionComplete, Run: r.reconcilePlan},
		{Condition: v1alpha1.ConditionComplete, Run: r.reconcileCount},
		{Condition: v1alpha1.ConditionComplete, Run: r.reconcileCopies},
		{Condition: v1alpha1.ConditionComplete, Run: r.reconcileDelivered},
	} {
		out = append(out, reconcile.Phase[*scope]{Condition: p.Condition, Run: func(ctx context.Context, s *scope) error {
			if finished(s.replay) {
				return nil
			}
			return p.Run(ctx, s)
		}})
	}
	return out
}

// reconcileFinished deletes a Replay that has been finished for long enough.
func (r *Reconciler) reconcileFinished(ctx context.Context, s *scope) error {
	o := s.replay
	if !finished(o) {
		return nil
	}
	r.forgetRun(o)
	if ttl, at := o.Spec.TTLSecondsAfterFinished, o.Status.CompletedAt; ttl != nil && at != nil {
		s.next = max(time.Second, at.Add(time.Duration(*ttl)*time.Second).Sub(s.now))
		if s.now.Sub(at.Time) >= time.Duration(*ttl)*time.Second {
			err := r.Client.Delete(ctx, o, client.Preconditions{UID: &o.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
			if client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("deleting a Replay that has finished: %w", err)
			}
			return nil
		}
	}
	if c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionFailed); c != nil {
		return outcome.Refuse(c.Reason, "%s", c.Message).On(v1alpha1.ConditionFailed).In(s.next)
	}
	return nil
}

// forgetRun of a Replay that has finished.
func (r *Reconciler) forgetRun(o *v1alpha1.Replay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runs, client.ObjectKeyFromObject(o))
}

// reconcilePlan fixes what the Replay covers. Nothing is copied before that is written down.
func (r *Reconciler) reconcilePlan(ctx context.Context, s *scope) error {
	st := &s.replay.Status
	if st.Plan != nil || s.suspended() {
		return nil
	}
	p, err := s.area.Session.PlanReplay(ctx, buildReplay(s.replay, s.route, s.destination))
	if err != nil {
		return busOutcome(err)
	}
	now := metav1.NewTime(s.now)
	st.StartedAt = &now
	st.Plan = &v1alpha1.ReplayPlan{
		Stream: p.Stream, StreamCreated: metav1.NewTime(p.Created), RouteUID: s.route.UID, Destination: s.destination,
		FirstSequence: int64(p.First), LastSequence: int64(p.Last), CopiesAfter: int64(p.After), Trimmed: int64(p.Trimmed),
	}
	if !p.Oldest.IsZero() {
		oldest := metav1.NewTime(p.Oldest)
		st.Plan.Oldest = &oldest
	}
	st.LastSequence, st.LastCopy = int64(p.First)-1, int64(p.After)
	s.stage, s.next = stageCounting, goOn
	return nil
}

// reconcileCount counts for one run. A count that is interrupted begins anew.
func (r *Reconciler) reconcileCount(ctx context.Context, s *scope) error {
	st := &s.replay.Status
	if s.stage != stageWaiting || st.Plan == nil || st.Counts != nil || s.suspended() {
		return nil
	}
	s.stage, s.next = stageCounting, goOn
	replay, plan := buildReplay(s.replay, s.route, s.destination), planOf(st.Plan)
	done, err := s.area.Session.CountReplay(ctx, replay, plan, &s.run.count, s.now.Add(runFor))
	if err != nil {
		return busOutcome(err)
	}
	if !done {
		return nil
	}
	matched := int64(s.run.count.Matched)
	st.Counts = &v1alpha1.ReplayCounts{Matched: matched, Remaining: matched, Missing: st.Plan.Trimmed + int64(s.run.count.Missing(replay))}
	s.stage = stageReplaying
	if s.dryRun() {
		s.stage = stageComplete
	}
	return nil
}

// reconcileCopies copies for one run, and removes the dead letters that the run before has copied.
func (r *Reconciler) reconcileCopies(ctx context.Context, s *scope) error {
	st := &s.replay.Status
	if s.stage != stageWaiting || st.Counts == nil || s.dryRun() {
		return nil
	}
	written := uint64(st.LastSequence)
	if s.run.progress.Position > written { // the write after the last run met a change of the object
		writeProgress(st, s.run.progress)
	}
	if s.suspended() {
		return nil
	}
	s.stage, s.next = stageReplaying, goOn
	replay, plan, session := buildReplay(s.replay, s.route, s.destination), planOf(st.Plan), s.area.Session
	if err := r.recover(ctx, s, replay, plan); err != nil {
		return busOutcome(err)
	}
	if s.removes() && s.run.cleared < written {
		cleared, err := session.ClearReplay(ctx, replay, plan, s.run.cleared, written, s.now.Add(runFor))
		if s.run.cleared = cleared; err != nil {
			return busOutcome(err)
		}
	}
	if s.run.progress.Position < plan.Last {
		s.run.pace.SetRate(int(s.replay.Spec.Rate))
		err := session.CopyReplay(ctx, replay, plan, &s.run.progress, &s.run.pace, s.now.Add(runFor))
		writeProgress(st, s.run.progress)
		if err != nil {
			// What was under way may be stored all the same.
			s.run.recovered = false
			return busOutcome(err)
		}
	}
	if s.run.progress.Position >= plan.Last {
		s.stage = stageDelivering
	}
	return nil
}

// recover what an operator before this one has copied and not written down.
func (r *Reconciler) recover(ctx context.Context, s *scope, replay bus.Replay, plan bus.ReplayPlan) error {
	if s.run.recovered {
		return nil
	}
	st := &s.replay.Status
	progress := bus.ReplayProgress{Position: uint64(st.LastSequence), Sent: uint64(st.Counts.Sent), LastCopy: uint64(st.LastCopy)}
	if s.run.progress.Position > progress.Position { // a write of the status was lost, and not this process
		progress = bus.ReplayProgress{Position: s.run.progress.Position, Sent: s.run.progress.Sent, LastCopy: s.run.progress.LastCopy}
	}
	if err := s.area.Session.RecoverReplay(ctx, replay, plan, &progress); err != nil {
		return err
	}
	s.run.progress, s.run.recovered = progress, true
	s.run.cleared = max(s.run.cleared, plan.First-1)
	return nil
}

// writeProgress into the status.
func writeProgress(st *v1alpha1.ReplayStatus, p bus.ReplayProgress) {
	st.LastSequence, st.LastCopy, st.Counts.Sent = int64(p.Position), int64(p.LastCopy), int64(p.Sent)
	st.Counts.Matched = max(st.Counts.Matched, st.Counts.Sent)
	st.Counts.Remaining = st.Counts.Matched - st.Counts.Sent
}

// reconcileDelivered asks whether the destination has taken everything. Before, the progress has to be written, and dead letters that were
// copied have to be gone.
func (r *Reconciler) reconcileDelivered(_ context.Context, s *scope) error {
	st := &s.replay.Status
	if s.stage != stageDelivering || s.removes() && s.run.cleared < uint64(st.Plan.LastSequence) {
		return nil
	}
	if st.Counts.Sent > 0 && !taken(s.durables, uint64(st.LastCopy)) {
		if s.run.delivering.IsZero() {
			s.run.delivering = s.now
		}
		if s.next = deliveringSoon; s.now.Sub(s.run.delivering) > deliveringLong {
			s.next = deliveringLate
		}
		return nil
	}
	// What was counted and is not sent was trimmed meanwhile.
	st.Counts.Missing += st.Counts.Matched - st.Counts.Sent
	st.Counts.Remaining = 0
	s.stage = stageComplete
	return nil
}

// taken tells whether durable consumers have everything acknowledged up to a sequence. They were asked before the run, when less was
// owed, so that the last copy must be among what they have acknowledged.
func taken(durables []bus.DurableState, lastCopy uint64) bool {
	for _, d := range durables {
		if d.AckFloor < lastCopy {
			return false
		}
	}
	return len(durables) > 0
}

// busOutcome maps an error of package bus.
func busOutcome(err error) error {
	switch {
	case errors.Is(err, bus.ErrFull):
		return outcome.Wait(v1alpha1.ReasonStreamFull, "%w: the Replay goes on when delivered messages were trimmed, or spec.retention.size of the Integration is raised", err).
			On(v1alpha1.ConditionComplete).In(fullWait)
	case errors.Is(err, bus.ErrReplaced):
		return failed(v1alpha1.ReasonStreamReplaced, "%w: create another Replay", err)
	case errors.Is(err, bus.ErrUnreachable), errors.Is(err, bus.ErrNotFound):
		return refs.BusOutcome(err)
	}
	return outcome.Retry(v1alpha1.ReasonReplayFailed, "%w", err).On(v1alpha1.ConditionComplete)
}
