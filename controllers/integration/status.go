package integration

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/reconcile"
)

// lowSpace is the share of a stream's size, in percent, above which storage counts as low; healthySpace the one below which it is healthy again.
const (
	lowSpace     = 80
	healthySpace = 75
)

// setStatus computes the status of a pass that ended with err, about the condition failed.
func setStatus(s *scope, err error, failed string) {
	st := &s.integration.Status
	set := conditions.For(&st.Conditions, s.integration.Generation)
	set.Progress(err, failed,
		conditions.Step{Condition: v1alpha1.ConditionAccepted, Reason: v1alpha1.ReasonAccepted, Message: "the spec is valid"},
		conditions.Step{Condition: v1alpha1.ConditionResolvedRefs, Reason: v1alpha1.ReasonResolved, Message: "the Broker is there"},
		conditions.Step{Condition: v1alpha1.ConditionProgrammed, Reason: v1alpha1.ReasonProgrammed, Message: "the broker has the streams"},
	)
	if s.area.Broker != nil {
		st.Broker = client.ObjectKeyFromObject(s.area.Broker).String()
	}
	setStorage(s, set)
	if compile.Suspended(s.integration.Spec.Suspend) {
		set.True(v1alpha1.ConditionSuspended, v1alpha1.ReasonBacklogHeld, "spec.suspend is set: sources take nothing in, and messages wait on the bus")
	} else {
		set.False(v1alpha1.ConditionSuspended, v1alpha1.ReasonNotSuspended, "")
	}
	connectors, routes := summarize(s)
	st.Connectors, st.Routes = connectors.String(), routes.String()
	setReady(set, connectors, routes)
	setRelay(s, set)
}

// setRelay corrects Ready while the relay that Routes need is not ready: what it lacks says more than that they wait.
func setRelay(s *scope, set conditions.Setter) {
	ready := set.Get(v1alpha1.ConditionReady)
	if !slices.ContainsFunc(s.routes, func(r v1alpha1.Route) bool { return compile.NeedsRelay(&r) }) ||
		ready.Status != metav1.ConditionTrue && ready.Reason != v1alpha1.ReasonRoutesNotReady && ready.Reason != v1alpha1.ReasonProgressing {
		return
	}
	var relay *metav1.Condition
	if st := s.integration.Status.Relay; st != nil {
		relay = meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
	}
	switch {
	case reconcile.UnderWay(relay) && ready.Reason == v1alpha1.ReasonRoutesNotReady:
	case reconcile.UnderWay(relay):
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonProgressing, "on the way: the relay, which makes the events and tables of Routes")
	case relay.Status != metav1.ConditionTrue:
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonRelayNotReady, "the relay, which makes the events and tables of Routes: "+relay.Reason+": "+relay.Message)
	}
}

// setStorage says whether there is room. The figures of the message are rounded, so that the status does not change with every message.
func setStorage(s *scope, set conditions.Setter) {
	if s.storage == nil {
		set.Unknown(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonPending, "the streams cannot be looked at")
		return
	}
	limit := int64(lowSpace)
	if c := set.Get(v1alpha1.ConditionStorageHealthy); c != nil && c.Reason == v1alpha1.ReasonStorageLow {
		limit = healthySpace
	}
	st := s.storage
	switch {
	case st.NoLeader:
		set.False(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonReplicasLagging, "a stream has no leader and takes nothing: too few servers run")
	case percent(st.Bytes, st.MaxBytes) >= limit:
		set.False(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonStorageLow, low("messages", st.Bytes, st.MaxBytes, "size"))
	case percent(st.DeadBytes, st.DeadMaxBytes) >= limit:
		set.False(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonStorageLow, low("dead letters", st.DeadBytes, st.DeadMaxBytes, "deadLettersSize"))
	case percent(st.ClaimsBytes, st.ClaimsMaxBytes) >= limit:
		set.False(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonStorageLow, low("claim checks", st.ClaimsBytes, st.ClaimsMaxBytes, "claimsSize"))
	case fullTable(st.Tables, limit) != nil:
		set.False(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonStorageLow, lowTable(fullTable(st.Tables, limit)))
	case len(st.Lagging) > 0:
		set.False(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonReplicasLagging, "not current: "+strings.Join(st.Lagging, ", "))
	default:
		set.True(v1alpha1.ConditionStorageHealthy, v1alpha1.ReasonHealthy, "there is room, and every copy is current")
	}
}

func percent(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return int64(float64(part) / float64(whole) * 100)
}

func low(what string, part, whole int64, field string) string {
	return fmt.Sprintf("%s fill more than %d%% of %d MiB: find the Route that is behind, or raise spec.retention.%s",
		what, min(percent(part, whole)/5*5, 100), whole>>20, field)
}

// count of objects that are ready, and which are not.
type count struct {
	ready, all int
	// broken objects, with why, and those that are on their way: the first few of each, and how many others there are.
	broken, coming         []string
	moreBroken, moreComing int
}

func (c *count) String() string { return fmt.Sprintf("%d/%d", c.ready, c.all) }

// maxNamed objects in a message.
const maxNamed = 3

func (c *count) add(kind, name string, generation int64, list []metav1.Condition) {
	c.all++
	ready := meta.FindStatusCondition(list, v1alpha1.ConditionReady)
	switch {
	case reconcile.UnderWay(ready) || ready.ObservedGeneration != generation:
		keep(&c.coming, &c.moreComing, kind+" "+name)
	case ready.Status == metav1.ConditionTrue:
		c.ready++
	default:
		keep(&c.broken, &c.moreBroken, kind+" "+name+": "+ready.Reason+": "+ready.Message)
	}
}

func keep(list *[]string, more *int, text string) {
	if len(*list) == maxNamed {
		*more++
		return
	}
	*list = append(*list, text)
}

func say(list []string, more int) string {
	out := strings.Join(list, "; ")
	if more > 0 {
		out += fmt.Sprintf("; and %d more", more)
	}
	return out
}

func summarize(s *scope) (connectors, routes count) {
	for i := range s.connectors {
		c := &s.connectors[i]
		connectors.add("Connector", c.Name, c.Generation, c.Status.Conditions)
	}
	for i := range s.routes {
		o := &s.routes[i]
		routes.add("Route", o.Name, o.Generation, o.Status.Conditions)
	}
	return connectors, routes
}

// setReady: the streams are there and healthy, and everything that names the Integration is ready.
func setReady(set conditions.Setter, connectors, routes count) {
	set.Summarize("messages flow", v1alpha1.ConditionAccepted, v1alpha1.ConditionResolvedRefs)
	if set.Get(v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
		return
	}
	if c := set.Get(v1alpha1.ConditionSuspended); c.Status == metav1.ConditionTrue {
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonSuspended, c.Message)
		return
	}
	set.Summarize("messages flow", v1alpha1.ConditionProgrammed, v1alpha1.ConditionStorageHealthy)
	if set.Get(v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
		return
	}
	switch {
	case len(connectors.broken) > 0:
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonConnectorsNotReady, say(connectors.broken, connectors.moreBroken))
	case len(routes.broken) > 0:
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonRoutesNotReady, say(routes.broken, routes.moreBroken))
	case connectors.ready < connectors.all:
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonProgressing, "on the way: "+say(connectors.coming, connectors.moreComing))
	case routes.ready < routes.all:
		set.False(v1alpha1.ConditionReady, v1alpha1.ReasonProgressing, "on the way: "+say(routes.coming, routes.moreComing))
	}
}
