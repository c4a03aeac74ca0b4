package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
)

// setStatus computes the status of a pass that ended with err, about the condition failed.
func setStatus(s *scope, err error, failed string) {
	st := &s.route.Status
	set := conditions.For(&st.Conditions, s.route.Generation)
	resolved := conditions.Step{Condition: v1alpha1.ConditionResolvedRefs, Reason: v1alpha1.ReasonResolved, Message: "Integration, Broker and Connectors are there"}
	programmed := conditions.Step{Condition: v1alpha1.ConditionProgrammed, Reason: v1alpha1.ReasonProgrammed, Message: "every destination has its durable consumer"}
	if s.call != nil {
		programmed.Message = "every source may call the service"
	}
	accepted := conditions.Step{Condition: v1alpha1.ConditionAccepted, Reason: v1alpha1.ReasonAccepted, Message: "the spec is valid"}
	if (failed == v1alpha1.ConditionResolvedRefs || failed == v1alpha1.ConditionAccepted) && s.allProgrammed() {
		// A Connector is missing, or a schema; the durable consumers hold the Route's place all the same.
		set.Progress(err, failed, accepted, resolved)
		set.True(programmed.Condition, programmed.Reason, programmed.Message)
	} else {
		set.Progress(err, failed, accepted, resolved, programmed)
		setUnresolved(s, set, failed)
	}
	if s.call != nil {
		setCallConnected(s, set)
	} else {
		setDestinations(s, err)
		setConnected(s, set)
	}
	setSuspended(s, set)
	st.From, st.To = names(s)
	setReady(s, set)
}

func (s *scope) allProgrammed() bool {
	if s.call != nil {
		return len(s.call.callers) > 0 && !slices.ContainsFunc(s.call.callers, func(c caller) bool { return !c.taken })
	}
	return len(s.destinations) > 0 && !slices.ContainsFunc(s.destinations, func(d destination) bool { return !d.programmed })
}

// setUnresolved corrects ResolvedRefs of a pass that ended before references were looked at.
func setUnresolved(s *scope, set conditions.Setter, failed string) {
	if _, e := outcome.Of(s.unresolved); e != nil && failed == v1alpha1.ConditionProgrammed {
		set.False(cmp.Or(e.Condition, v1alpha1.ConditionResolvedRefs), e.Reason, s.unresolved.Error())
	}
}

// setDestinations sets the conditions of each destination, and drops those that are gone.
func setDestinations(s *scope, err error) {
	var out []v1alpha1.DestinationStatus
	for i := range s.destinations {
		d := &s.destinations[i]
		status := v1alpha1.DestinationStatus{Name: d.spec.Name}
		for _, old := range s.route.Status.Destinations {
			if old.Name == d.spec.Name {
				status.Conditions = slices.Clone(old.Conditions)
			}
		}
		set := conditions.For(&status.Conditions, s.route.Generation)
		switch {
		case d.programmed:
			set.True(v1alpha1.ConditionProgrammed, v1alpha1.ReasonProgrammed, "")
		case err != nil:
			set.Unknown(v1alpha1.ConditionProgrammed, v1alpha1.ReasonPending, err.Error())
		}
		connectedStatus, reason, message := connected(s, d)
		set.Set(v1alpha1.ConditionConnected, connectedStatus, reason, message)
		out = append(out, status)
	}
	if len(out) > 0 {
		s.route.Status.Destinations = out
	}
}

// connected says whether a destination's pods deliver: the Connector is connected, runs the destination as it is now, and reports no problem
// with it.
func connected(s *scope, d *destination) (metav1.ConditionStatus, string, string) {
	switch {
	case s.area.Session == nil && s.area.Unreachable != nil:
		return metav1.ConditionUnknown, v1alpha1.ReasonBrokerUnreachable, "the operator cannot hear the pods: " + s.area.Unreachable.Error()
	case d.refused != nil:
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, d.refused.Error()
	}
	if d.connector == nil { // an event's, while nothing is known of the Integration
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "nothing is known of the relay yet"
	}
	c := meta.FindStatusCondition(d.connector.Status.Conditions, v1alpha1.ConditionConnected)
	switch {
	case c == nil:
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, d.host() + " has no pods yet"
	case c.Status != metav1.ConditionTrue:
		return c.Status, c.Reason, d.host() + ": " + c.Message
	case !d.taken:
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, d.host() + " has not taken the Route up yet"
	}
	return delivering(s, d)
}

// delivering asks the reports of the pods that run the present configuration.
func delivering(s *scope, d *destination) (metav1.ConditionStatus, string, string) {
	status, reason, message := reported(d.reports, d.connector.Status.ConfigHash, s.route.Name, string(d.spec.Name))
	if status == metav1.ConditionTrue && d.former != "" {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, stillFormer(d.former)
	}
	if status == metav1.ConditionUnknown {
		message = "the pods of " + d.host() + " take the Route up"
	}
	return status, reason, message
}

func stillFormer(pod string) string {
	return "pod " + pod + " works by what the Route said before, until it has ended"
}

// reported is what the pods of a configuration say of a Route's destination: Unknown while none has said anything.
func reported(reports []bus.PodReport, config, route, destination string) (metav1.ConditionStatus, string, string) {
	heard := false
	for _, p := range reports {
		if p.Report.Draining || p.Report.ConfigHash != config {
			continue
		}
		heard = true
		for _, r := range p.Report.Routes {
			if r.Route == route && r.Destination == destination && !r.OK && r.Reason != contract.ReasonSuspended {
				reason := r.Reason
				if reason == "" {
					reason = v1alpha1.ReasonSystemError
				}
				return metav1.ConditionFalse, reason, r.Message
			}
		}
	}
	if !heard {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, ""
	}
	return metav1.ConditionTrue, v1alpha1.ReasonConnected, ""
}

// setConnected sums the destinations up: the first that is False, else the first that is Unknown.
func setConnected(s *scope, set conditions.Setter) {
	var worst *metav1.Condition
	var where string
	for _, d := range s.route.Status.Destinations {
		c := meta.FindStatusCondition(d.Conditions, v1alpha1.ConditionConnected)
		if c == nil || c.Status == metav1.ConditionTrue {
			continue
		}
		if worst == nil || c.Status == metav1.ConditionFalse && worst.Status != metav1.ConditionFalse {
			worst, where = c, string(d.Name)
		}
	}
	asked := notServing(s)
	switch {
	case asked != nil && (worst == nil || worst.Status != metav1.ConditionFalse):
		set.Set(v1alpha1.ConditionConnected, asked.Status, asked.Reason, asked.Message)
	case worst != nil:
		set.Set(v1alpha1.ConditionConnected, worst.Status, worst.Reason, "destination "+where+": "+worst.Message)
	case len(s.route.Status.Destinations) == 0:
		set.Unknown(v1alpha1.ConditionConnected, v1alpha1.ReasonPending, "nothing is known of the destinations yet")
	default:
		set.True(v1alpha1.ConditionConnected, v1alpha1.ReasonConnected, "every destination is connected")
	}
}

func setSuspended(s *scope, set conditions.Setter) {
	where := ""
	switch {
	case compile.Suspended(s.route.Spec.Suspend):
		where = "spec.suspend is set"
	case s.area.Integration != nil && compile.Suspended(s.area.Integration.Spec.Suspend):
		where = "Integration " + s.area.Integration.Name + " is suspended"
	default:
		for _, d := range s.destinations {
			if d.connector != nil && compile.Suspended(d.connector.Spec.Suspend) {
				where = "Connector " + d.connector.Name + " is suspended"
			}
		}
	}
	for _, c := range s.asked {
		if where == "" && compile.Suspended(c.Spec.Suspend) {
			where = "Connector " + c.Name + " is suspended, which a step asks"
		}
	}
	if s.call != nil && s.call.service != nil && where == "" && compile.Suspended(s.call.service.Spec.Suspend) {
		where = "Connector " + s.call.service.Name + " is suspended"
	}
	switch {
	case where == "":
		set.False(v1alpha1.ConditionSuspended, v1alpha1.ReasonNotSuspended, "")
		return
	case s.call != nil:
		set.True(v1alpha1.ConditionSuspended, v1alpha1.ReasonSuspended, where+": requests are answered 503")
		return
	}
	set.True(v1alpha1.ConditionSuspended, v1alpha1.ReasonBacklogHeld, where+": messages wait on the bus, and count towards its size")
}

// setReady: data flows when the Route is programmed, its sources are ready and every destination is connected.
func setReady(s *scope, set conditions.Setter) {
	for _, t := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionResolvedRefs} {
		if c := set.Get(t); c == nil || c.Status != metav1.ConditionTrue {
			set.Summarize("", v1alpha1.ConditionAccepted, v1alpha1.ConditionResolvedRefs)
			return
		}
	}
	if c := set.Get(v1alpha1.ConditionSuspended); c.Status == metav1.ConditionTrue {
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonSuspended, c.Message)
		return
	}
	flow := "messages flow"
	if s.call != nil {
		flow = "requests are answered"
	}
	set.Summarize(flow, v1alpha1.ConditionProgrammed, v1alpha1.ConditionConnected)
	if set.Get(v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
		return
	}
	for _, f := range s.route.Spec.From {
		c := s.sources[string(f.Connector)]
		if c == nil {
			continue
		}
		ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady)
		if ready != nil && ready.Status == metav1.ConditionTrue {
			continue
		}
		status, text := metav1.ConditionUnknown, "it has no status yet"
		if ready != nil {
			status, text = ready.Status, ready.Reason+": "+ready.Message
		}
		set.Set(v1alpha1.ConditionReady, status, v1alpha1.ReasonConnectorsNotReady, fmt.Sprintf("source Connector %s: %s", c.Name, text))
		return
	}
}

// names for the printer: the sources, the destination Connectors or the service, and the types of events on either side.
func names(s *scope) (from, to string) {
	var sources, sinks []string
	for _, f := range s.route.Spec.From {
		switch {
		case f.Events == nil:
			sources = append(sources, string(f.Connector))
		case len(f.Events.Types) == 0:
			sources = append(sources, "events")
		default:
			sources = append(sources, f.Events.Types...)
		}
	}
	for _, d := range s.route.Spec.To {
		switch {
		case d.Event != nil:
			sinks = append(sinks, d.Event.Type)
		case d.Table != nil:
			sinks = append(sinks, "table/"+string(d.Table.Name))
		default:
			sinks = append(sinks, string(d.Connector))
		}
	}
	if s.route.Spec.Call != nil {
		sinks = append(sinks, string(s.route.Spec.Call.Connector))
	}
	return list(sources), list(sinks)
}

// list of names as long as the status takes.
func list(names []string) string {
	const limit = 1024
	text := strings.Join(slices.Compact(names), ",")
	if len(text) > limit {
		text = text[:limit-3] + "..."
	}
	return text
}
