package conditions

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
)

func TestConditionThatEndsAsItBeganHasNotTurned(t *testing.T) {
	since := metav1.NewTime(time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC))
	before := []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonConnectorsNotReady, Message: "one is not",
		ObservedGeneration: 3, LastTransitionTime: since,
	}}
	list := append([]metav1.Condition(nil), before...)
	set := For(&list, 3)
	set.True(v1alpha1.ConditionReady, v1alpha1.ReasonReady, "messages flow")
	set.False(v1alpha1.ConditionReady, v1alpha1.ReasonConnectorsNotReady, "one is not")
	if diff := cmp.Diff(before, list); diff != "" {
		t.Errorf("a pass that found nothing new changed the condition: %s", diff)
	}
	set.True(v1alpha1.ConditionReady, v1alpha1.ReasonReady, "messages flow")
	if at := set.Get(v1alpha1.ConditionReady).LastTransitionTime; !at.After(since.Time) {
		t.Errorf("the condition turned, and still says %s", at)
	}
}
