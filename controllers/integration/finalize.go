package integration

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/reconcile"
	"github.com/metip/metip/controllers/internal/refs"
)

const (
	// deletionLimit is how long the deletion of data may hold an Integration.
	deletionLimit = 10 * time.Minute
	// namespaceLimit is the same in a namespace that goes: an operator that has just started, or a broker whose pod moves, answers within it.
	namespaceLimit = time.Minute
)

// finalize deletes the streams, or keeps them, as the deletionPolicy says. It never hangs: without a Broker the Integration is released at once,
// in a namespace that goes after namespaceLimit, otherwise after deletionLimit, and an Event says what was left behind.
func (r *Reconciler) finalize(ctx context.Context, s *scope) error {
	i := s.integration
	err := r.deleteData(ctx, s)
	if err == nil {
		return nil
	}
	terminating, nsErr := r.namespaceTerminating(ctx, i.Namespace)
	if nsErr != nil {
		return nsErr
	}
	since := i.DeletionTimestamp.Time
	if began := r.finalizing(); began.After(since) { // nobody has tried before
		since = began
	}
	if mayHold(err, terminating, s.now.Sub(since)) {
		return outcome.Wait(v1alpha1.ReasonDeleting, "deleting the streams: %w", err)
	}
	if i.Spec.DeletionPolicy == v1alpha1.DeletionPolicyDelete && i.Status.Broker != "" {
		message := fmt.Sprintf("released although its streams on Broker %s could not be deleted: %v", i.Status.Broker, err)
		if !terminating { // which takes no Events
			reconcile.Record(r.Events, i, corev1.EventTypeWarning, v1alpha1.ReasonDataLeftBehind, message)
		}
		ctrl.LoggerFrom(ctx).Info("data left behind", "broker", i.Status.Broker, "cause", err.Error())
	}
	return nil
}

// mayHold tells whether data that could not be deleted may hold the Integration, for how long somebody has tried.
func mayHold(err error, namespaceTerminating bool, tried time.Duration) bool {
	limit := deletionLimit
	if namespaceTerminating {
		limit = namespaceLimit
	}
	return !errors.Is(err, errNoBroker) && tried < limit
}

// deleteData deletes the streams or, where they are kept, the durable consumers of Routes that are gone: nobody would move their place on.
func (r *Reconciler) deleteData(ctx context.Context, s *scope) error {
	i := s.integration
	broker, there, err := r.brokerOf(ctx, i)
	if err != nil {
		return err
	}
	if !there {
		return errNoBroker
	}
	session, err := r.Areas.Sessions.Session(broker)
	if err != nil {
		if i.Spec.DeletionPolicy != v1alpha1.DeletionPolicyDelete {
			return nil // nothing has to be deleted; a later Integration of the name sweeps up
		}
		return err
	}
	if i.Spec.DeletionPolicy == v1alpha1.DeletionPolicyDelete {
		return session.DeleteStreams(ctx, i.Namespace, i.Name)
	}
	if s.routes, err = refs.RoutesOf(ctx, r.Client, s.key()); err != nil {
		return err
	}
	s.area = refs.Area{Integration: i, Session: session}
	if err := r.reconcileDurables(ctx, s); err != nil && !errors.Is(err, bus.ErrNotFound) {
		ctrl.LoggerFrom(ctx).Info("kept durable consumers of former routes with the data", "stream", contract.EventStream(i.Namespace, i.Name), "cause", err.Error())
	}
	return nil
}

func (r *Reconciler) namespaceTerminating(ctx context.Context, name string) (bool, error) {
	ns, err := refs.Namespace(ctx, r.Client, name)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && !ns.DeletionTimestamp.IsZero(), err
}
