package route

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/refs"
)

// observeAsked reads the services that steps ask. One that is missing is no error for the pods: messages wait for it.
func (r *Reconciler) observeAsked(ctx context.Context, s *scope) error {
	for _, name := range refs.EnrichServices(s.route) {
		c, err := r.connector(ctx, s, name)
		if err != nil {
			return err
		}
		if err := refs.CheckEnrich(s.route, name, c); err != nil {
			if s.unresolved == nil {
				s.unresolved = err
			}
			continue
		}
		s.asked = append(s.asked, c)
	}
	return nil
}

// notServing is the first service that a step asks and that does not work; a service that is known not to comes before one of which nothing is
// known.
func notServing(s *scope) *metav1.Condition {
	var worst *metav1.Condition
	for _, c := range s.asked {
		status, reason, message := serving(c)
		if status == metav1.ConditionTrue || worst != nil && (worst.Status == metav1.ConditionFalse || status != metav1.ConditionFalse) {
			continue
		}
		worst = &metav1.Condition{Type: v1alpha1.ConditionConnected, Status: status, Reason: reason, Message: message}
	}
	return worst
}
