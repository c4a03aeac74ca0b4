package connector

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
)

// setStatus computes the status of a pass that ended with err, about the condition failed.
func setStatus(s *scope, err error, failed string) {
	st := &s.connector.Status
	set := conditions.For(&st.Conditions, s.connector.Generation)
	accepted := conditions.Step{Condition: v1alpha1.ConditionAccepted, Reason: v1alpha1.ReasonAccepted, Message: "the spec is valid"}
	resolved := conditions.Step{Condition: v1alpha1.ConditionResolvedRefs, Reason: v1alpha1.ReasonResolved, Message: "Integration and Broker are there"}
	programmed := conditions.Step{Condition: v1alpha1.ConditionProgrammed, Reason: v1alpha1.ReasonProgrammed, Message: "the pods have a broker user"}
	if s.unresolved != nil && err == s.unresolved && s.config.Hash != "" { //nolint:errorlint // the very error of the last phase
		// All else has been done, with the schema that runs.
		set.Progress(err, failed, accepted, resolved)
		set.True(programmed.Condition, programmed.Reason, programmed.Message)
	} else {
		set.Progress(err, failed, accepted, resolved, programmed)
	}
	if s.record == nil && err != nil && failed == v1alpha1.ConditionDeployed {
		set.Unknown(v1alpha1.ConditionProgrammed, v1alpha1.ReasonPending, "no broker user has been issued yet")
	}
	setDeployed(s, set, err, failed)
	setConnected(s, set)
	setSuspended(s, set)
	setSummary(s)
	setReady(s, set)
}

func setSummary(s *scope) {
	st := &s.connector.Status
	st.Role, st.Type, st.Endpoint = s.system.Role, s.system.Name, s.system.Endpoint
	st.AttachedRoutes = new(int32(s.attached))
	st.Selector = k8slabels.SelectorFromSet(selector(s.connector.Name)).String()
	st.Replicas = 0
	if s.deployment != nil {
		st.Replicas = s.deployment.Status.Replicas
	}
	st.ConfigHash = s.wantedHash()
	st.CredentialExpiry = nil
	if s.record != nil {
		st.CredentialExpiry = &metav1.Time{Time: s.record.Expires.Local()}
	}
}

// setDeployed says whether every pod runs the present configuration.
func setDeployed(s *scope, set conditions.Setter, err error, failed string) {
	if failed == v1alpha1.ConditionDeployed {
		if _, e := outcome.Of(err); e != nil {
			set.Progress(err, failed, conditions.Step{Condition: v1alpha1.ConditionDeployed})
			return
		}
	}
	status, reason, message := deployed(s)
	set.Set(v1alpha1.ConditionDeployed, status, reason, message)
}

func deployed(s *scope) (metav1.ConditionStatus, string, string) {
	d := s.deployment
	if d == nil {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "there are no pods yet"
	}
	wanted := wantedReplicas(d)
	if trouble := podTrouble(s); trouble != "" {
		return metav1.ConditionFalse, v1alpha1.ReasonPodsNotReady, trouble
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return metav1.ConditionFalse, v1alpha1.ReasonPodsNotReady, c.Message
		}
	}
	switch {
	case s.deployedHash() != s.wantedHash(), d.Status.ObservedGeneration < d.Generation:
		return metav1.ConditionFalse, v1alpha1.ReasonProgressing, "a change is being rolled out"
	case wanted == 0:
		return metav1.ConditionFalse, v1alpha1.ReasonScaledToZero, "replicas is 0: nothing runs; raise spec.replicas"
	case d.Status.UpdatedReplicas < wanted || d.Status.Replicas > d.Status.UpdatedReplicas || d.Status.AvailableReplicas < wanted:
		return metav1.ConditionFalse, shortageReason(d), fmt.Sprintf("%d of %d pods of the present configuration are available",
			min(d.Status.AvailableReplicas, d.Status.UpdatedReplicas), wanted)
	}
	return metav1.ConditionTrue, v1alpha1.ReasonDeployed, fmt.Sprintf("%d of %d pods run the present configuration", d.Status.UpdatedReplicas, wanted)
}

// shortageReason tells a roll that is under way from pods that were lost, or never came.
func shortageReason(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type != appsv1.DeploymentProgressing {
			continue
		}
		if c.Reason == "ProgressDeadlineExceeded" || c.Reason == "NewReplicaSetAvailable" {
			return v1alpha1.ReasonPodsNotReady
		}
	}
	return v1alpha1.ReasonProgressing
}

// troubles are states of a container that do not pass by waiting.
var troubles = []string{
	"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CrashLoopBackOff", "CreateContainerConfigError",
	"CreateContainerError", "RunContainerError",
}

// podContainer names the user's own container; the engine's goes without saying.
func podContainer(pod, container string) string {
	if container == customName {
		return pod + ", container " + container
	}
	return pod
}

// podTrouble is what keeps a pod of the present configuration from running.
func podTrouble(s *scope) string {
	for i := range s.pods {
		p := &s.pods[i]
		if configOf(&p.ObjectMeta) != s.wantedHash() {
			continue
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if w := c.State.Waiting; w != nil && slices.Contains(troubles, w.Reason) {
				return fmt.Sprintf("pod %s: %s: %s", podContainer(p.Name, c.Name), w.Reason, w.Message)
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				return fmt.Sprintf("pod %s cannot be scheduled: %s", p.Name, c.Message)
			}
		}
	}
	return ""
}

// setConnected says what the pods report. Those of the present configuration decide; during a roll, before any of them has reported, the
// ones that still do the work.
func setConnected(s *scope, set conditions.Setter) {
	status, reason, message := connected(s)
	set.Set(v1alpha1.ConditionConnected, status, reason, message)
}

func connected(s *scope) (metav1.ConditionStatus, string, string) {
	if s.area.Session == nil && s.area.Unreachable != nil {
		return metav1.ConditionUnknown, v1alpha1.ReasonBrokerUnreachable, "the operator cannot hear the pods: " + s.area.Unreachable.Error()
	}
	if s.area.Session == nil || s.deployment == nil {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "there are no pods yet"
	}
	present, former := split(s)
	if len(present.unheard) > 0 {
		s.again(contract.ReportTimeout) // to find out whether it has fallen silent
	}
	heard := present
	if len(heard.states) == 0 && len(former.states) > 0 {
		heard = former
	}
	for _, st := range heard.states {
		if !st.OK {
			reason := st.Reason
			if reason == "" {
				reason = v1alpha1.ReasonConnectionFailed
			}
			return metav1.ConditionFalse, reason, st.Message
		}
	}
	if len(heard.silent) > 0 {
		return metav1.ConditionUnknown, v1alpha1.ReasonNoReport, fmt.Sprintf("pod %s has not reported for %s", heard.silent[0], contract.ReportTimeout)
	}
	if len(heard.states) == 0 {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "no pod has reported yet"
	}
	return metav1.ConditionTrue, v1alpha1.ReasonConnected, s.system.Endpoint
}

// voices of a set of pods.
type voices struct {
	// states of the pods that reported, by pod: the one that is not OK if there is one.
	states []contract.State
	// silent pods have been ready for longer than a report may take; unheard ones may still report.
	silent, unheard []string
}

// split the pods' reports into those of the present configuration and of former ones. Pods that drain speak for nobody.
func split(s *scope) (present, former voices) {
	for i := range s.pods {
		p := &s.pods[i]
		v := &former
		if configOf(&p.ObjectMeta) == s.wantedHash() {
			v = &present
		}
		found := false
		for _, r := range s.reports {
			if r.Pod != p.Name {
				continue
			}
			found = true
			if !r.Report.Draining && r.Report.ConfigHash == configOf(&p.ObjectMeta) {
				v.states = append(v.states, worst(r.Report))
			}
		}
		switch {
		case !found && readyFor(p, s):
			v.silent = append(v.silent, p.Name)
		case !found:
			v.unheard = append(v.unheard, p.Name)
		}
	}
	return present, former
}

// worst state of a report. A system that is at rest because the Connector is suspended is no failure.
func worst(r contract.Report) contract.State {
	for _, st := range []contract.State{r.Bus, r.System} {
		if !st.OK && st.Reason != contract.ReasonSuspended {
			return st
		}
	}
	return contract.State{OK: true}
}

// readyFor tells whether a pod has been ready for longer than a report may take.
func readyFor(p *corev1.Pod, s *scope) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return s.now.Sub(c.LastTransitionTime.Time) > contract.ReportTimeout
		}
	}
	return false
}

func setSuspended(s *scope, set conditions.Setter) {
	where := ""
	switch {
	case compile.Suspended(s.connector.Spec.Suspend):
		where = "spec.suspend is set"
	case s.area.Integration != nil && compile.Suspended(s.area.Integration.Spec.Suspend):
		where = "Integration " + s.area.Integration.Name + " is suspended"
	default:
		set.False(v1alpha1.ConditionSuspended, v1alpha1.ReasonNotSuspended, "")
		return
	}
	if s.isSink() && s.attached > 0 {
		set.True(v1alpha1.ConditionSuspended, v1alpha1.ReasonBacklogHeld, where+": messages wait on the bus, and count towards its size")
		return
	}
	set.True(v1alpha1.ConditionSuspended, v1alpha1.ReasonSuspended, where)
}

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
	order := []string{v1alpha1.ConditionProgrammed, v1alpha1.ConditionDeployed, v1alpha1.ConditionConnected}
	if refused(s) {
		order[1], order[2] = order[2], order[1]
	}
	set.Summarize(s.system.Endpoint, order...)
}

// refused tells whether a pod of the present configuration says what is wrong: then that it is not ready is no more than what follows from it.
func refused(s *scope) bool {
	if s.area.Session == nil || s.deployment == nil {
		return false
	}
	present, _ := split(s)
	return slices.ContainsFunc(present.states, func(st contract.State) bool { return !st.OK })
}
