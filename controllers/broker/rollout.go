package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metip/metip/controllers/internal/bus"
)

// roll is the next step of a roll: a pod to replace, or what it waits for. Neither: there is no roll.
type roll struct {
	replace string
	waits   string
}

// nextRoll replaces one server at a time, the leader of the cluster's metadata last, and only while every copy of every stream is
// current. A server that is of no use as it is goes first: it may be the old configuration that ails it.
func nextRoll(s *scope) roll {
	if s.servers == nil || s.servers.Status.ObservedGeneration < s.servers.Generation || s.servers.Status.UpdateRevision == "" {
		return roll{}
	}
	old := outdated(s.pods, s.servers.Status.UpdateRevision)
	if len(old) == 0 {
		return roll{}
	}
	of := fmt.Sprintf("%d of %d servers still run the former configuration", len(old), s.replicas())
	for _, p := range s.pods {
		if !p.DeletionTimestamp.IsZero() {
			return roll{waits: of + ": waits until " + p.Name + " has stopped"}
		}
	}
	if i := slices.IndexFunc(old, func(p corev1.Pod) bool { return !podReady(&p) }); i >= 0 {
		return roll{replace: old[i].Name, waits: of + ": replacing " + old[i].Name + ", which is not ready"}
	}
	if len(s.pods) < int(s.replicas()) {
		return roll{waits: of + ": waits for the other servers to be created"}
	}
	for _, p := range s.pods {
		if !podReady(&p) {
			return roll{waits: of + ": waits until " + p.Name + " is ready"}
		}
	}
	if s.replicas() > 1 {
		if why := notCurrent(s); why != "" {
			return roll{waits: of + ": " + why}
		}
	}
	next := old[0]
	if next.Name == s.health.Leader && len(old) > 1 {
		next = old[1]
	}
	return roll{replace: next.Name, waits: of + ": replacing " + next.Name}
}

// notCurrent says why no server may be taken away now.
func notCurrent(s *scope) string {
	h := s.health
	switch {
	case !s.connection.Live || s.healthErr != nil:
		return "waits until the servers answer the operator"
	case len(h.Servers) < int(s.replicas()):
		return fmt.Sprintf("waits until all servers answer (%d of %d)", len(h.Servers), s.replicas())
	case len(h.NoLeader) > 0:
		return "waits for a leader of stream " + h.NoLeader[0]
	case h.Leader == "":
		return "waits for a leader of the cluster"
	}
	if i := slices.IndexFunc(h.Servers, func(x bus.ServerHealth) bool { return !x.OK }); i >= 0 {
		return "waits until " + h.Servers[i].Name + " is current"
	}
	return ""
}

// outdated pods, the highest number first.
func outdated(pods []corev1.Pod, revision string) []corev1.Pod {
	var out []corev1.Pod
	for _, p := range pods {
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] != revision {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b corev1.Pod) int { return cmp.Compare(ordinal(b.Name), ordinal(a.Name)) })
	return out
}

func ordinal(pod string) int {
	n, err := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	if err != nil {
		return -1
	}
	return n
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// toGrow are the volumes that ask for less than is wanted.
func toGrow(s *scope) []corev1.PersistentVolumeClaim {
	want := s.broker.Spec.Managed.Storage.Size
	var out []corev1.PersistentVolumeClaim
	for _, v := range s.volumes {
		if have := v.Spec.Resources.Requests[corev1.ResourceStorage]; have.Cmp(want) < 0 {
			out = append(out, v)
		}
	}
	return out
}

// templateIsSmall tells whether the StatefulSet would make volumes smaller than is wanted. The field cannot be changed.
func templateIsSmall(s *scope) bool {
	if s.servers == nil || len(s.servers.Spec.VolumeClaimTemplates) == 0 {
		return false
	}
	have := s.servers.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests[corev1.ResourceStorage]
	return have.Cmp(s.broker.Spec.Managed.Storage.Size) < 0
}

// podTrouble says why a pod is not ready, as far as Kubernetes knows.
func podTrouble(p *corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" {
			return strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", p.Name, w.Reason, w.Message), ": ")
		}
		if t := c.State.Terminated; t != nil {
			return fmt.Sprintf("%s: %s (exit code %d)", p.Name, t.Reason, t.ExitCode)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("%s: %s: %s", p.Name, c.Reason, c.Message)
		}
	}
	return p.Name + " is starting"
}
