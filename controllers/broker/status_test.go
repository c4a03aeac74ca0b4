package broker

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/outcome"
)

func TestStatus(t *testing.T) {
	live := bus.Connection{Live: true}
	good := bus.Health{Servers: []bus.ServerHealth{{Name: "bus-broker-0", OK: true, Version: "2.15.2", Used: 10, Max: 100}}}
	full := bus.Health{Servers: []bus.ServerHealth{{Name: "bus-broker-0", OK: true, Used: 91, Max: 100}}}
	ready := []corev1.Pod{pod("bus-broker-0", "new", true)}
	for name, c := range map[string]struct {
		change func(*scope)
		err    error
		failed string
		want   map[string]string
	}{
		"well": {func(*scope) {}, nil, "", map[string]string{
			"Accepted": "True/Accepted", "ResolvedRefs": "True/Resolved", "Deployed": "True/Deployed", "Connected": "True/Connected",
			"StorageHealthy": "True/Healthy", "Ready": "True/Ready",
		}},
		"refused": {func(s *scope) { s.connected = false }, outcome.Refuse(v1alpha1.ReasonInvalidSpec, "no"), "Accepted", map[string]string{
			"Accepted": "False/InvalidSpec", "ResolvedRefs": "Unknown/Pending", "Deployed": "Unknown/Pending", "Connected": "Unknown/Pending", "Ready": "False/InvalidSpec",
		}},
		"the pod is not there yet": {func(s *scope) { s.pods, s.connection = nil, bus.Connection{Since: s.now} }, nil, "", map[string]string{
			"Deployed": "False/PodsNotReady", "Connected": "Unknown/Pending", "StorageHealthy": "Unknown/BrokerUnreachable", "Ready": "False/PodsNotReady",
		}},
		"it does not answer": {func(s *scope) {
			s.connection = bus.Connection{Since: s.now.Add(-time.Minute), Err: errors.New("dial: refused")}
		}, nil, "", map[string]string{
			"Deployed": "True/Deployed", "Connected": "False/BrokerUnreachable", "StorageHealthy": "Unknown/BrokerUnreachable", "Ready": "False/BrokerUnreachable",
		}},
		"it has never answered": {func(s *scope) { s.connection = bus.Connection{Since: s.now.Add(-time.Minute)} }, nil, "", map[string]string{
			"Connected": "False/BrokerUnreachable",
		}},
		"it is full":         {func(s *scope) { s.health = full }, nil, "", map[string]string{"StorageHealthy": "False/StorageLow", "Ready": "False/StorageLow"}},
		"a copy is behind":   {func(s *scope) { s.health.Lagging = []string{"a_b on bus-broker-1"} }, nil, "", map[string]string{"StorageHealthy": "False/ReplicasLagging"}},
		"a roll":             {func(s *scope) { s.rolling = "1 of 1" }, nil, "", map[string]string{"Deployed": "False/Progressing", "Ready": "False/Progressing"}},
		"a name is taken":    {func(*scope) {}, outcome.Stall(v1alpha1.ReasonNameTaken, "x"), "Deployed", map[string]string{"Deployed": "False/NameTaken", "Connected": "True/Connected", "Ready": "False/NameTaken"}},
		"the API is away":    {func(*scope) {}, errors.New("timeout"), "Accepted", map[string]string{"Ready": "Unknown/Pending"}},
		"the API fails late": {func(*scope) {}, errors.New("timeout"), "Deployed", map[string]string{"Accepted": "True/Accepted", "Deployed": "Unknown/Pending", "Connected": "True/Connected"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := managed(t, 1, nil)
			s.pods, s.connection, s.connected, s.health = ready, live, true, good
			c.change(s)
			setStatus(s, c.err, c.failed)
			for condition, want := range c.want {
				got := meta.FindStatusCondition(s.broker.Status.Conditions, condition)
				if got == nil {
					t.Errorf("%s is missing", condition)
				} else if have := string(got.Status) + "/" + got.Reason; have != want {
					t.Errorf("%s: %s (%s), want %s", condition, have, got.Message, want)
				}
			}
		})
	}
}

func TestExternalBrokerHasNoDeployment(t *testing.T) {
	s := managed(t, 1, func(b *v1alpha1.Broker) {
		b.Spec.Managed, b.Spec.External = nil, &v1alpha1.ExternalBroker{URL: "tls://nats:4222"}
		b.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionDeployed, Status: metav1.ConditionTrue}}
	})
	s.connection, s.connected = bus.Connection{Live: true}, true
	setStatus(s, nil, "")
	if meta.FindStatusCondition(s.broker.Status.Conditions, v1alpha1.ConditionDeployed) != nil {
		t.Error("Deployed is there")
	}
	if !meta.IsStatusConditionTrue(s.broker.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("not ready: %+v", s.broker.Status.Conditions)
	}
}
