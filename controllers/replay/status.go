package replay

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
)

// setStatus computes the status of a pass that ended with err, about the condition failedOn.
func setStatus(s *scope, err error, failedOn string) {
	o := s.replay
	set := conditions.For(&o.Status.Conditions, o.Generation)
	setSuspended(s, set)
	if finished(o) { // nothing changes any more but the generation
		for _, c := range o.Status.Conditions {
			set.Set(c.Type, c.Status, c.Reason, c.Message)
		}
		return
	}
	set.Progress(err, failedOn,
		conditions.Step{Condition: v1alpha1.ConditionAccepted, Reason: v1alpha1.ReasonAccepted, Message: "the spec is valid"},
		conditions.Step{Condition: v1alpha1.ConditionResolvedRefs, Reason: v1alpha1.ReasonResolved, Message: "Route, destination, Integration and Broker are there"},
		conditions.Step{Condition: v1alpha1.ConditionProgrammed, Reason: v1alpha1.ReasonProgrammed, Message: "the destination's durable consumers take what is replayed"},
	)
	if failedOn == v1alpha1.ConditionFailed {
		setFailed(s, set, err)
	}
	setComplete(s, set, err, failedOn)
	o.Status.To = string(o.Spec.To.Route) + "/" + string(s.shownDestination())
	if c := o.Status.Counts; c != nil {
		o.Status.Progress = fmt.Sprintf("%d/%d", c.Sent, c.Matched)
	}
	setReady(set)
	if finished(o) {
		now := metav1.NewTime(s.now)
		o.Status.CompletedAt = &now
	}
}

func (s *scope) shownDestination() v1alpha1.ObjectName {
	if s.destination != "" {
		return s.destination
	}
	return s.replay.Spec.To.Destination
}

func setSuspended(s *scope, set conditions.Setter) {
	if s.suspended() && !finished(s.replay) {
		set.True(v1alpha1.ConditionSuspended, v1alpha1.ReasonSuspended, "spec.suspend is set: nothing more is put on the bus")
		return
	}
	set.False(v1alpha1.ConditionSuspended, v1alpha1.ReasonNotSuspended, "")
}

// setFailed for good. The conditions before keep what was known of them.
func setFailed(s *scope, set conditions.Setter, err error) {
	_, e := outcome.Of(err)
	set.True(v1alpha1.ConditionFailed, e.Reason, err.Error())
	for _, t := range []string{v1alpha1.ConditionResolvedRefs, v1alpha1.ConditionProgrammed} {
		if s.area.Session == nil && (set.Get(t) == nil || set.Get(t).Status == metav1.ConditionTrue) {
			set.Unknown(t, v1alpha1.ReasonPending, "the Replay has failed")
		}
	}
}

func setComplete(s *scope, set conditions.Setter, err error, failedOn string) {
	_, e := outcome.Of(err)
	switch {
	case s.stage == stageComplete:
		set.True(v1alpha1.ConditionComplete, v1alpha1.ReasonCompleted, s.summary())
	case err != nil && failedOn == v1alpha1.ConditionComplete && e != nil:
		set.False(v1alpha1.ConditionComplete, e.Reason, err.Error())
	case err != nil && failedOn == v1alpha1.ConditionFailed:
		set.False(v1alpha1.ConditionComplete, v1alpha1.ReasonReplayFailed, err.Error())
	case err != nil && e == nil && set.Get(v1alpha1.ConditionComplete) != nil: // nothing new is known
	case err != nil:
		set.Unknown(v1alpha1.ConditionComplete, v1alpha1.ReasonPending, "waits for "+failedOn)
	case s.suspended():
		set.False(v1alpha1.ConditionComplete, v1alpha1.ReasonSuspended, "spec.suspend is set")
	case s.stage == stageDelivering:
		set.False(v1alpha1.ConditionComplete, v1alpha1.ReasonDelivering, s.waiting())
	case s.stage == stageReplaying:
		set.False(v1alpha1.ConditionComplete, v1alpha1.ReasonReplaying, "messages are put on the bus again")
	default:
		set.False(v1alpha1.ConditionComplete, v1alpha1.ReasonCounting, "messages are counted")
	}
}

// waiting says for what a Replay waits whose messages are all on the bus.
func (s *scope) waiting() string {
	text := fmt.Sprintf("every message is on the bus; destination %s of Route %s has not taken all of them yet", s.destination, s.route.Name)
	if compile.Suspended(s.route.Spec.Suspend) {
		return text + ": the Route is suspended"
	}
	if s.area.Integration != nil && compile.Suspended(s.area.Integration.Spec.Suspend) {
		return text + ": Integration " + s.area.Integration.Name + " is suspended"
	}
	return text
}

// summary of a Replay that is complete.
func (s *scope) summary() string {
	st := &s.replay.Status
	text := fmt.Sprintf("%d messages were replayed", st.Counts.Sent)
	if s.dryRun() {
		text = fmt.Sprintf("a dry run: %d messages would be replayed", st.Counts.Matched)
	}
	if st.Counts.Missing > 0 {
		text += fmt.Sprintf("; %d are missing", st.Counts.Missing)
	}
	if t := s.replay.Spec.From.Time; t != nil && st.Plan.Oldest != nil && t.From.Before(st.Plan.Oldest) {
		text += "; the bus held no message from before " + st.Plan.Oldest.UTC().Format(time.RFC3339)
	}
	return text
}

// setReady: a Replay is ready when it is done.
func setReady(set conditions.Setter) {
	if c := set.Get(v1alpha1.ConditionFailed); c != nil && c.Status == metav1.ConditionTrue {
		set.False(v1alpha1.ConditionReady, c.Reason, c.Message)
		return
	}
	complete := set.Get(v1alpha1.ConditionComplete)
	if complete.Status == metav1.ConditionTrue {
		set.True(v1alpha1.ConditionReady, v1alpha1.ReasonCompleted, complete.Message)
		return
	}
	set.Summarize("", v1alpha1.ConditionAccepted, v1alpha1.ConditionResolvedRefs, v1alpha1.ConditionProgrammed, v1alpha1.ConditionComplete)
}
