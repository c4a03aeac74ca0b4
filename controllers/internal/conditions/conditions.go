package conditions

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/outcome"
)

// Setter sets the conditions of one object.
type Setter struct {
	list       *[]metav1.Condition
	generation int64
	before     []metav1.Condition
}

// For makes a Setter of an object's conditions; generation is the one that was looked at.
func For(list *[]metav1.Condition, generation int64) Setter {
	return Setter{list, generation, slices.Clone(*list)}
}

// maxMessage is the longest message of a condition.
const maxMessage = 2048

// Set a condition. One that is set more than once, and ends with the status that it had, has not turned: its transition time stays.
func (s Setter) Set(conditionType string, status metav1.ConditionStatus, reason, message string) {
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	meta.SetStatusCondition(s.list, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: message, ObservedGeneration: s.generation,
	})
	if was := meta.FindStatusCondition(s.before, conditionType); was != nil && was.Status == status {
		s.Get(conditionType).LastTransitionTime = was.LastTransitionTime
	}
}

// True sets a condition True.
func (s Setter) True(conditionType, reason, message string) {
	s.Set(conditionType, metav1.ConditionTrue, reason, message)
}

// False sets a condition False.
func (s Setter) False(conditionType, reason, message string) {
	s.Set(conditionType, metav1.ConditionFalse, reason, message)
}

// Unknown sets a condition Unknown.
func (s Setter) Unknown(conditionType, reason, message string) {
	s.Set(conditionType, metav1.ConditionUnknown, reason, message)
}

// Remove a condition.
func (s Setter) Remove(conditionType string) { meta.RemoveStatusCondition(s.list, conditionType) }

// Get a condition, or nil.
func (s Setter) Get(conditionType string) *metav1.Condition {
	return meta.FindStatusCondition(*s.list, conditionType)
}

// Step is a condition that a phase of a pass is answerable for, and what to say when the phase went well.
type Step struct {
	Condition, Reason, Message string
}

// Progress sets the conditions of a pass whose phases ended with err: those before the one that failed are True, those after it
// are Unknown/Pending. An error without a reason of its own (the API server is away, a conflict) changes nothing that was known.
// failed is the condition that err is about.
func (s Setter) Progress(err error, failed string, steps ...Step) {
	after := false
	for _, step := range steps {
		switch {
		case after:
			s.Unknown(step.Condition, v1alpha1.ReasonPending, fmt.Sprintf("waits for %s", failed))
		case err == nil || step.Condition != failed:
			s.True(step.Condition, step.Reason, step.Message)
		default:
			after = true
			s.fail(step.Condition, err)
			if _, e := outcome.Of(err); e == nil {
				return
			}
		}
	}
}

func (s Setter) fail(condition string, err error) {
	_, e := outcome.Of(err)
	switch {
	case e == nil:
		if s.Get(condition) == nil {
			s.Unknown(condition, v1alpha1.ReasonPending, "the operator tries again")
		}
	case e.Unknown:
		s.Unknown(condition, e.Reason, err.Error())
	default:
		s.False(condition, e.Reason, err.Error())
	}
}

// Summarize sets Ready from the given conditions: the first that is not True gives its status, reason and message.
func (s Setter) Summarize(message string, of ...string) {
	for _, t := range of {
		switch c := s.Get(t); {
		case c == nil:
			s.Unknown(v1alpha1.ConditionReady, v1alpha1.ReasonPending, "waits for "+t)
			return
		case c.Status != metav1.ConditionTrue:
			s.Set(v1alpha1.ConditionReady, c.Status, c.Reason, c.Message)
			return
		}
	}
	s.True(v1alpha1.ConditionReady, v1alpha1.ReasonReady, message)
}

// IsTrue tells whether a condition is True and speaks of the given generation.
func IsTrue(list []metav1.Condition, conditionType string, generation int64) bool {
	c := meta.FindStatusCondition(list, conditionType)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == generation
}
