package connector

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/apply"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/systems"
	"github.com/metip/metip/controllers/internal/validate"
)

func (r *Reconciler) phases() []reconcile.Phase[*scope] {
	return []reconcile.Phase[*scope]{
		{Condition: v1alpha1.ConditionAccepted, Run: r.reconcileAccepted},
		{Condition: v1alpha1.ConditionResolvedRefs, Run: r.observe},
		{Condition: v1alpha1.ConditionDeployed, Run: r.reconcileRefresh},
		{Condition: v1alpha1.ConditionResolvedRefs, Run: func(_ context.Context, s *scope) error { return s.areaErr }},
		{Condition: v1alpha1.ConditionResolvedRefs, Run: func(_ context.Context, s *scope) error { return s.withoutSchema() }},
		{Condition: v1alpha1.ConditionProgrammed, Run: func(_ context.Context, s *scope) error { return s.area.Programmed() }},
		{Condition: v1alpha1.ConditionAccepted, Run: r.reconcileConfig},
		{Condition: v1alpha1.ConditionProgrammed, Run: r.reconcileCredentials},
		{Condition: v1alpha1.ConditionDeployed, Run: r.reconcileChildren},
		{Condition: v1alpha1.ConditionDeployed, Run: r.reconcileRollout},
		{Condition: v1alpha1.ConditionResolvedRefs, Run: func(_ context.Context, s *scope) error { return s.unresolved }},
	}
}

// reconcileAccepted compiles what the schema cannot check. What runs goes on running while the new spec is refused.
func (r *Reconciler) reconcileAccepted(ctx context.Context, s *scope) error {
	system, err := systems.Of(s.connector)
	if err == nil {
		s.system = system
	}
	if invalid := validate.Outcome(r.Valid.Connector(s.connector)); invalid != nil {
		if err := r.observe(ctx, s); err != nil { // the status says how the pods are all the same
			return err
		}
		if _, e := outcome.Of(s.areaErr); e != nil && e.Hold {
			return s.areaErr
		}
		return invalid
	}
	return nil
}

// reconcileConfig compiles the configuration, and holds it back while the Routes in it are still being changed.
func (r *Reconciler) reconcileConfig(_ context.Context, s *scope) error {
	config, err := compile.Config(s.resolved, s.area.Integration, s.system, s.area.Session.Client(), s.routes, s.made)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if len(raw) > compile.MaxConfigSize {
		return outcome.Stall(v1alpha1.ReasonConfigTooLarge,
			"the configuration has %d KB with %d Routes, and at most %d KB fit: spread the Routes over several Connectors",
			len(raw)>>10, len(s.routes)+len(s.made), compile.MaxConfigSize>>10).On(v1alpha1.ConditionAccepted)
	}
	if s.runsRoutes() {
		if s.settling = r.settler.wait(s.key(), config.Hash, s.deployedHash(), s.now); s.settling > 0 {
			return outcome.Wait(v1alpha1.ReasonProgressing, "Routes of this Connector have just changed; the new configuration is rolled out in a moment").
				On(v1alpha1.ConditionDeployed).In(s.settling)
		}
	}
	s.config, s.configJSON = config, raw
	return nil
}

// reconcileChildren makes what Kubernetes runs.
func (r *Reconciler) reconcileChildren(ctx context.Context, s *scope) error {
	configMap, err := buildConfigMap(s)
	if err != nil {
		return err
	}
	deployment := buildDeployment(s, r.Defaults)
	service := buildService(s)
	type child struct {
		obj  client.Object
		opts []apply.Option
	}
	list := []child{
		{buildServiceAccount(s), nil},
		{buildNetworkPolicy(s, r.Defaults), nil},
		{configMap, []apply.Option{apply.Immutable}},
		{deployment, nil},
	}
	if s.system.Listens {
		list = append(list, child{service, nil})
	} else if _, err := r.Apply.Delete(ctx, s.owner(), service); err != nil {
		return fmt.Errorf("deleting Service: %w", err)
	}
	for _, c := range list {
		if _, err := r.Apply.Apply(ctx, s.owner(), c.obj, c.opts...); err != nil {
			return err
		}
	}
	s.deployment = deployment
	return nil
}

// permissions of the pods' broker user.
func (s *scope) permissions() contract.Permissions {
	c := s.connector
	switch {
	case s.config.Service != nil:
		return contract.ServicePermissions(c.Namespace, s.area.Integration.Name, c.Name, time.Duration(s.config.Service.Timeout))
	case systems.Answers(c):
		return contract.CallerPermissions(c.Namespace, c.Name, compile.Services(s.made)...)
	case s.config.Source != nil:
		p := contract.SourcePermissions(c.Namespace, s.area.Integration.Name, c.Name)
		if compile.TakesClaims(c) {
			p = p.WithClaims(c.Namespace, s.area.Integration.Name, c.Name)
		}
		if s.config.Source.Position {
			p = p.WithPosition(c.Namespace, s.area.Integration.Name, string(c.UID))
		}
		return p
	}
	var destinations []contract.SinkDestination
	for _, route := range s.config.Sink.Routes {
		destinations = append(destinations, contract.SinkDestination{
			Integration: route.Integration, Route: route.Name, Destination: route.Destination, Lanes: route.Delivery.Lanes, Sources: route.Sources,
		})
	}
	asked := contract.EnrichServices(s.config.Sink.Routes)
	read := contract.ReadTables(s.config.Sink.Routes)
	if s.relayOf != nil {
		return contract.RelayPermissions(c.Namespace, s.relayOf.Name, destinations, asked...).
			WithTables(c.Namespace, read, contract.WrittenTables(s.config.Sink.Routes))
	}
	return contract.SinkPermissions(c.Namespace, c.Name, destinations, asked...).WithTables(c.Namespace, read, nil)
}
