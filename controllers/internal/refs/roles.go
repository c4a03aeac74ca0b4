package refs

import (
	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/systems"
)

// CheckSource tells whether a Route may read from a Connector; nil for one that does not exist. A Route that delivers reads messages, and one
// that calls reads requests.
func CheckSource(r *v1alpha1.Route, name v1alpha1.ObjectName, c *v1alpha1.Connector) error {
	if err := checkConnector(r, name, c); err != nil {
		return err
	}
	if c.Spec.Source == nil {
		return refused(v1alpha1.ReasonWrongRole, "Connector %s is a %s: from needs a source", name, role(c))
	}
	switch answers, calls := systems.Answers(c), r.Spec.Call != nil; {
	case calls && !answers:
		return refused(v1alpha1.ReasonExchangeMismatch, "Connector %s takes messages and answers no requests, and this Route calls a service: "+
			"set source.http.exchange to RequestReply there, or give the Route `to` instead of `call`", name)
	case answers && !calls:
		return refused(v1alpha1.ReasonExchangeMismatch, "the requests of Connector %s are answered (exchange: RequestReply), and this Route delivers messages: "+
			"give the Route `call` instead of `to`, or read from a Connector with exchange OneWay", name)
	}
	return nil
}

// CheckService tells whether a Route may call a Connector; nil for one that does not exist.
func CheckService(r *v1alpha1.Route, c *v1alpha1.Connector) error {
	name := r.Spec.Call.Connector
	if err := checkConnector(r, name, c); err != nil {
		return err
	}
	if c.Spec.Service == nil {
		return refused(v1alpha1.ReasonWrongRole, "Connector %s is a %s: call needs a service", name, role(c))
	}
	return nil
}

// role of a Connector, for messages.
func role(c *v1alpha1.Connector) string {
	switch {
	case c.Spec.Source != nil:
		return "source"
	case c.Spec.Service != nil:
		return "service"
	default:
		return "sink"
	}
}

// CheckDestination tells whether a Route may deliver to a Connector; nil for one that does not exist. The bus itself takes everything.
func CheckDestination(r *v1alpha1.Route, d *v1alpha1.Destination, c *v1alpha1.Connector) error {
	if compile.OnTheBus(d) {
		return nil
	}
	if err := checkConnector(r, d.Connector, c); err != nil {
		return err
	}
	if c.Spec.Service != nil {
		return refused(v1alpha1.ReasonWrongRole, "Connector %s is a service: destination %s needs a sink; a Route calls a service with `call`", d.Connector, d.Name)
	}
	if c.Spec.Sink == nil {
		return refused(v1alpha1.ReasonWrongRole, "Connector %s is a source: destination %s needs a sink", d.Connector, d.Name)
	}
	op := systems.OperationOf(d.Operation)
	if op == nil {
		return nil
	}
	s, err := systems.Of(c)
	if err != nil || s.Name != op.Name {
		return refused(v1alpha1.ReasonOperationMismatch, "the operation of destination %s is for %s, and Connector %s is %s: write operation.%s",
			d.Name, op.Name, d.Connector, s.Name, s.Name)
	}
	if err := s.Fits(op); err != nil {
		return refused(v1alpha1.ReasonOperationMismatch, "the operation of destination %s %w", d.Name, err)
	}
	return nil
}

func checkConnector(r *v1alpha1.Route, name v1alpha1.ObjectName, c *v1alpha1.Connector) error {
	if c == nil {
		return refused(v1alpha1.ReasonConnectorNotFound, "there is no Connector %s in namespace %s", name, r.Namespace)
	}
	if c.Spec.IntegrationRef.Name != r.Spec.IntegrationRef.Name {
		return refused(v1alpha1.ReasonWrongIntegration, "Connector %s belongs to Integration %s, and the Route to %s",
			name, c.Spec.IntegrationRef.Name, r.Spec.IntegrationRef.Name)
	}
	return nil
}

// refused waits: the other object may change, which is watched.
func refused(reason, format string, a ...any) error {
	return outcome.Wait(reason, format, a...).On(v1alpha1.ConditionResolvedRefs).In(outcome.StalledRecheck)
}
