package route

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

// call of a Route that ends in a service, in a pass.
type call struct {
	// service or nil; refused says why it may not be called.
	service *v1alpha1.Connector
	refused error
	// callers are the sources that exist, each once.
	callers []caller
}

// caller is a source whose pods run the call.
type caller struct {
	connector *v1alpha1.Connector
	// taken: the source's present configuration holds the call as it is now, hence its broker user may call the service.
	taken   bool
	reports []bus.PodReport
	former  string
}

// observeService reads the Connector that is called.
func (r *Reconciler) observeService(ctx context.Context, s *scope) error {
	var err error
	if s.call.service, err = r.connector(ctx, s, s.route.Spec.Call.Connector); err != nil {
		return err
	}
	if s.call.refused = refs.CheckService(s.route, s.call.service); s.call.refused != nil && s.unresolved == nil {
		s.unresolved = s.call.refused
	}
	return nil
}

// observeCallers finds out which sources run the call as it is now, and what their pods say of it.
func (r *Reconciler) observeCallers(ctx context.Context, s *scope) error {
	want := ""
	if s.resolved != nil {
		var err error
		if want, err = compile.CallDigest(compile.Call(s.area.Integration, s.resolved)); err != nil {
			return err
		}
	}
	seen := map[v1alpha1.ObjectName]bool{}
	for _, f := range s.route.Spec.From {
		source := s.sources[string(f.Connector)]
		if source == nil || seen[f.Connector] {
			continue
		}
		seen[f.Connector] = true
		c := caller{connector: source}
		if s.area.Session != nil {
			c.reports = s.area.Session.Reports(s.route.Namespace, source.Name)
		}
		digests, err := r.digests(ctx, source, source.Status.ConfigHash)
		if err != nil {
			return err
		}
		key := compile.RouteKey(s.route.Name, contract.CallDestination)
		c.taken = want != "" && digests[key] == want
		if c.former, err = r.former(ctx, source, c.reports, key, want); err != nil {
			return err
		}
		s.call.callers = append(s.call.callers, c)
	}
	return nil
}

// callProgrammed is nil when every source may call the service. A source's configuration exists once its user has been issued with what the
// configuration needs.
func (s *scope) callProgrammed() error {
	if err := s.area.Programmed(); err != nil || s.unresolved != nil {
		return err
	}
	for _, c := range s.call.callers {
		if !c.taken {
			return outcome.Wait(v1alpha1.ReasonPending, "Connector %s has not taken the Route up yet", c.connector.Name).AsUnknown()
		}
	}
	return nil
}

// setCallConnected sums up what the pods on both sides say: the first that is False, else the first that is Unknown.
func setCallConnected(s *scope, set conditions.Setter) {
	status, reason, message := callConnected(s)
	set.Set(v1alpha1.ConditionConnected, status, reason, message)
}

func callConnected(s *scope) (metav1.ConditionStatus, string, string) {
	switch {
	case s.area.Session == nil && s.area.Unreachable != nil:
		return metav1.ConditionUnknown, v1alpha1.ReasonBrokerUnreachable, "the operator cannot hear the pods: " + s.area.Unreachable.Error()
	case s.unresolved != nil:
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, s.unresolved.Error()
	case s.call.service == nil || len(s.call.callers) == 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "nothing is known of the Connectors yet"
	}
	status, reason, message := serving(s.call.service)
	for i := range s.call.callers {
		if status == metav1.ConditionFalse {
			break
		}
		st, re, me := calling(s, &s.call.callers[i])
		if st == metav1.ConditionFalse || status == metav1.ConditionTrue {
			status, reason, message = st, re, me
		}
	}
	return status, reason, message
}

// serving says whether the service's pods take requests, and their system works.
func serving(service *v1alpha1.Connector) (metav1.ConditionStatus, string, string) {
	c := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionConnected)
	switch {
	case c == nil:
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "Connector " + service.Name + " has no pods yet"
	case c.Status != metav1.ConditionTrue:
		return c.Status, c.Reason, "Connector " + service.Name + ": " + c.Message
	}
	return metav1.ConditionTrue, v1alpha1.ReasonConnected, "the service is connected, and every source calls it"
}

// calling asks the reports of the source's pods that run the present configuration.
func calling(s *scope, c *caller) (metav1.ConditionStatus, string, string) {
	if !c.taken {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, "Connector " + c.connector.Name + " has not taken the Route up yet"
	}
	status, reason, message := reported(c.reports, c.connector.Status.ConfigHash, s.route.Name, contract.CallDestination)
	if status == metav1.ConditionTrue && c.former != "" {
		return metav1.ConditionUnknown, v1alpha1.ReasonPending, stillFormer(c.former)
	}
	switch status {
	case metav1.ConditionTrue:
		return status, reason, "the service is connected, and every source calls it"
	case metav1.ConditionUnknown:
		message = "the pods of Connector " + c.connector.Name + " take the Route up"
	default:
		message = fmt.Sprintf("source Connector %s: %s", c.connector.Name, message)
	}
	return status, reason, message
}
