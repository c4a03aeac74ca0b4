package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
)

// storageLow is the share of a server's storage above which it is worth a word. What is reserved for streams does not count: only what
// is stored.
const storageLow = 0.85

// unreachableAfter is how long a broker that has never answered is only awaited.
const unreachableAfter = 8 * time.Second

// setStatus computes the status of a pass that ended with err, which is about the condition failed.
func setStatus(s *scope, err error, failed string) {
	status := &s.broker.Status
	set := conditions.For(&status.Conditions, s.broker.Generation)
	set.Progress(err, failed,
		conditions.Step{Condition: v1alpha1.ConditionAccepted, Reason: v1alpha1.ReasonAccepted, Message: "the spec is valid"},
		conditions.Step{Condition: v1alpha1.ConditionResolvedRefs, Reason: v1alpha1.ReasonResolved, Message: resolvedMessage(s)},
	)
	reached := err == nil || failed == v1alpha1.ConditionDeployed
	if s.managed() {
		setDeployedCondition(s, set, err, failed)
	} else {
		set.Remove(v1alpha1.ConditionDeployed)
	}
	setConnectedCondition(s, set, reached)
	setStorageCondition(s, set)
	ready := []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionResolvedRefs, v1alpha1.ConditionConnected, v1alpha1.ConditionStorageHealthy}
	if s.managed() {
		// Deployed before Connected: while servers start, that is the news.
		ready = slices.Insert(ready, 2, v1alpha1.ConditionDeployed)
	}
	set.Summarize("the broker answers and stores messages", ready...)
	status.Integrations = new(s.integrations)
	setServers(s, status)
}

func resolvedMessage(s *scope) string {
	if s.managed() {
		return "keys and certificates are there"
	}
	return "the credentials are there"
}

// setDeployedCondition speaks of pods; whether they serve, Connected says.
func setDeployedCondition(s *scope, set conditions.Setter, err error, failed string) {
	switch {
	case err != nil && failed == v1alpha1.ConditionDeployed:
		if _, e := outcome.Of(err); e != nil {
			set.False(v1alpha1.ConditionDeployed, e.Reason, err.Error())
		} else if set.Get(v1alpha1.ConditionDeployed) == nil {
			set.Unknown(v1alpha1.ConditionDeployed, v1alpha1.ReasonPending, "the operator tries again")
		}
		return
	case err != nil:
		if set.Get(v1alpha1.ConditionDeployed) == nil {
			set.Unknown(v1alpha1.ConditionDeployed, v1alpha1.ReasonPending, "waits for "+failed)
		}
		return
	}
	ready, trouble := int32(0), []string(nil)
	for i := range s.pods {
		if p := &s.pods[i]; podReady(p) && p.DeletionTimestamp.IsZero() {
			ready++
		} else {
			trouble = append(trouble, podTrouble(p))
		}
	}
	switch {
	case s.rolling != "":
		set.False(v1alpha1.ConditionDeployed, v1alpha1.ReasonProgressing, s.rolling)
	case ready < s.replicas():
		message := fmt.Sprintf("%d of %d servers of StatefulSet %s are ready", ready, s.replicas(), serversName(s.broker.Name))
		if len(trouble) > 0 {
			message += ": " + strings.Join(trouble, "; ")
		}
		set.False(v1alpha1.ConditionDeployed, v1alpha1.ReasonPodsNotReady, message)
	default:
		set.True(v1alpha1.ConditionDeployed, v1alpha1.ReasonDeployed, "every server runs the present configuration")
	}
}

func setConnectedCondition(s *scope, set conditions.Setter, reached bool) {
	c := s.connection
	switch {
	case !reached || !s.connected:
		set.Unknown(v1alpha1.ConditionConnected, v1alpha1.ReasonPending, "the operator has no credentials to connect with yet")
	case c.Live:
		set.True(v1alpha1.ConditionConnected, v1alpha1.ReasonConnected, "the broker answers the operator")
	case connecting(s):
		set.Unknown(v1alpha1.ConditionConnected, v1alpha1.ReasonPending, "the operator is connecting")
	default:
		set.False(v1alpha1.ConditionConnected, v1alpha1.ReasonBrokerUnreachable, unreachableMessage(s))
	}
}

// connecting tells whether a session has just been made and nothing has gone wrong yet.
func connecting(s *scope) bool {
	c := s.connection
	return s.connected && !c.Live && c.Err == nil && s.now.Sub(c.Since) < unreachableAfter
}

func unreachableMessage(s *scope) string {
	why := "no answer"
	if s.connection.Err != nil {
		why = s.connection.Err.Error()
	}
	if s.managed() {
		return fmt.Sprintf("%s does not answer: %s: look at the pods of StatefulSet %s/%s and their logs",
			clientURL(s.key()), why, s.broker.Namespace, serversName(s.broker.Name))
	}
	return fmt.Sprintf("%s does not answer: %s: check spec.external.url, the credentials and the network", s.broker.Spec.External.URL, why)
}

func setStorageCondition(s *scope, set conditions.Setter) {
	t := v1alpha1.ConditionStorageHealthy
	switch {
	case !s.connection.Live:
		set.Unknown(t, v1alpha1.ReasonBrokerUnreachable, "the broker does not answer")
	case s.healthErr != nil:
		if set.Get(t) == nil {
			set.Unknown(t, v1alpha1.ReasonPending, "the servers have not been asked yet")
		}
	case len(s.health.NoLeader) > 0:
		set.False(t, v1alpha1.ReasonReplicasLagging, "no leader, nothing is stored: "+strings.Join(s.health.NoLeader, ", "))
	case fullest(s) != "":
		set.False(t, v1alpha1.ReasonStorageLow, fullest(s))
	case len(s.health.Lagging) > 0:
		set.False(t, v1alpha1.ReasonReplicasLagging, "copies are behind: "+strings.Join(s.health.Lagging, ", "))
	default:
		set.True(t, v1alpha1.ReasonHealthy, "there is room, and every copy is current")
	}
}

// fullest names the servers whose storage runs low. Its text changes with every five per cent only.
func fullest(s *scope) string {
	var low []string
	for _, server := range s.health.Servers {
		if share := float64(server.Used) / float64(max(server.Max, 1)); server.Max > 0 && share > storageLow {
			low = append(low, fmt.Sprintf("%s uses more than %d %%", server.Name, int(share*20)*5))
		}
	}
	if len(low) == 0 {
		return ""
	}
	return strings.Join(low, ", ") + " of its storage: raise spec.managed.storage.size, or lower the Integrations' retention"
}

// setServers counts the servers that say that they are well. While the leader moves none may answer for a moment: what was known stays.
func setServers(s *scope, status *v1alpha1.BrokerStatus) {
	servers := s.health.Servers
	if s.connection.Live && len(servers) == 0 {
		return
	}
	healthy, versions := 0, []string(nil)
	for _, server := range servers {
		if server.OK {
			healthy++
		}
		versions = append(versions, server.Version)
	}
	switch {
	case s.managed():
		status.Servers = fmt.Sprintf("%d/%d", healthy, s.replicas())
	case len(servers) > 0:
		status.Servers = fmt.Sprintf("%d/%d", healthy, len(servers))
	default: // nobody knows how many there are
		status.Servers = ""
	}
	slices.Sort(versions)
	if versions = slices.Compact(versions); len(versions) > 0 {
		status.Version = strings.Join(versions, ", ")
	}
}

// settled tells whether nothing is expected to change by itself.
func settled(s *scope) bool {
	for _, c := range s.broker.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			return c.Status == metav1.ConditionTrue
		}
	}
	return false
}
