package refs

import (
	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/systems"
)

// CheckSource tells whether a Route may read from a Connector; nil for one that does not exist.
func CheckSource(r *v1alpha1.Route, name v1alpha1.ObjectName, c *v1alpha1.Connector) error {
	if err := checkConnector(r, name, c); err != nil {
		return err
	}
	if c.Spec.Source == nil {
		return refused(v1alpha1.ReasonWrongRole, "Connector %s is a sink: from needs a source", name)
	}
	return nil
}

// CheckDestination tells whether a Route may deliver to a Connector; nil for one that does not exist. The bus itself takes everything.
func CheckDestination(r *v1alpha1.Route, d *v1alpha1.Destination, c *v1alpha1.Connector) error {
	if d.Event != nil {
		return nil
	}
	if err := checkConnector(r, d.Connector, c); err != nil {
		return err
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
