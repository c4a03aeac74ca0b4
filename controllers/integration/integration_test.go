package integration

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/refs"
)

func member(ready metav1.ConditionStatus, reason, message string) []metav1.Condition {
	return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Reason: reason, Message: message, ObservedGeneration: 1}}
}

func connector(name string, conditions []metav1.Condition) v1alpha1.Connector {
	c := v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}}
	c.Status.Conditions = conditions
	return c
}

func TestStatus(t *testing.T) {
	ready := member("True", v1alpha1.ReasonReady, "")
	down := member("False", v1alpha1.ReasonConnectionFailed, "db:5432: refused")
	coming := member("False", v1alpha1.ReasonProgressing, "a change is being rolled out")
	for name, c := range map[string]struct {
		change func(*scope)
		err    error
		failed string
		want   string
	}{
		"everything flows": {func(*scope) {}, nil, "", "True/Ready: messages flow"},
		"a target is down": {func(s *scope) {
			s.connectors = append(s.connectors, connector("db", down), connector("new", coming))
		}, nil, "", "False/ConnectorsNotReady: Connector db: ConnectionFailed: db:5432: refused"},
		"a member is only starting": {func(s *scope) { s.connectors = append(s.connectors, connector("new", coming)) }, nil, "",
			"False/Progressing: on the way: Connector new"},
		"a status of a former generation counts for nothing": {func(s *scope) { s.connectors[0].Generation = 2 }, nil, "",
			"False/Progressing: on the way: Connector in"},
		"many are down": {func(s *scope) {
			for _, n := range strings.Fields("a b c d e") {
				s.connectors = append(s.connectors, connector(n, down))
			}
		}, nil, "", "False/ConnectorsNotReady: Connector a: ConnectionFailed: db:5432: refused; Connector b: ConnectionFailed: db:5432: refused; " +
			"Connector c: ConnectionFailed: db:5432: refused; and 2 more"},
		"nearly full":              {func(s *scope) { s.storage.Bytes = 83 }, nil, "", "False/StorageLow: messages fill more than 80%"},
		"dead letters nearly full": {func(s *scope) { s.storage.DeadBytes = 99 }, nil, "", "False/StorageLow: dead letters fill more than 95%"},
		"a stream without leader":  {func(s *scope) { s.storage.NoLeader = true }, nil, "", "False/ReplicasLagging"},
		"suspended":                {func(s *scope) { s.integration.Spec.Suspend = new(true) }, nil, "", "False/Suspended"},
		"the broker does not answer": {func(s *scope) { s.storage = nil }, refs.Unreachable(bus.ErrUnreachable), v1alpha1.ConditionProgrammed,
			"Unknown/BrokerNotReady"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scope{
				integration: &v1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Generation: 1}},
				connectors:  []v1alpha1.Connector{connector("in", ready)},
				storage:     &bus.StreamsState{MaxBytes: 100, DeadMaxBytes: 100},
			}
			c.change(s)
			setStatus(s, c.err, c.failed)
			got := meta.FindStatusCondition(s.integration.Status.Conditions, v1alpha1.ConditionReady)
			if text := string(got.Status) + "/" + got.Reason + ": " + got.Message; !strings.HasPrefix(text, c.want) {
				t.Errorf("Ready is %s, want %s", text, c.want)
			}
		})
	}
}

func TestFullnessDoesNotFlap(t *testing.T) {
	s := &scope{integration: &v1alpha1.Integration{}, storage: &bus.StreamsState{MaxBytes: 100, DeadMaxBytes: 100}}
	for _, step := range []struct {
		bytes int64
		want  string
	}{{79, v1alpha1.ReasonHealthy}, {81, v1alpha1.ReasonStorageLow}, {77, v1alpha1.ReasonStorageLow}, {74, v1alpha1.ReasonHealthy}, {77, v1alpha1.ReasonHealthy}} {
		s.storage.Bytes = step.bytes
		setStatus(s, nil, "")
		if got := meta.FindStatusCondition(s.integration.Status.Conditions, v1alpha1.ConditionStorageHealthy); got.Reason != step.want {
			t.Errorf("at %d%%: %s, want %s", step.bytes, got.Reason, step.want)
		}
	}
}

func TestNothingHoldsADeletionForEver(t *testing.T) {
	away := errors.New("no answer")
	for _, c := range []struct {
		name        string
		err         error
		terminating bool
		age         time.Duration
		hold        bool
	}{
		{"the broker is away", away, false, time.Minute, true},
		{"for too long", away, false, deletionLimit, false},
		{"the namespace goes, and the operator has just started", away, true, time.Second, true},
		{"the namespace goes, and the broker is away", away, true, namespaceLimit, false},
		{"the namespace goes, and there is no Broker", errNoBroker, true, time.Second, false},
		{"there is no Broker", errNoBroker, false, time.Second, false},
	} {
		if got := mayHold(c.err, c.terminating, c.age); got != c.hold {
			t.Errorf("%s: %v, want %v", c.name, got, c.hold)
		}
	}
}
