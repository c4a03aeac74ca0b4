package webhook

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/validate"
)

// SetupWithManager serves the webhooks, with what the operator's flags allow.
func SetupWithManager(mgr ctrl.Manager, allowed validate.Allowed) error {
	err := ctrl.NewWebhookManagedBy(mgr, &v1alpha1.Connector{}).WithValidator(connectors{allowed}).Complete()
	if err != nil {
		return err
	}
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.Route{}).WithValidator(routes{}).Complete()
}

// connectors validates Connectors.
type connectors struct{ allowed validate.Allowed }

func (v connectors) ValidateCreate(_ context.Context, c *v1alpha1.Connector) (admission.Warnings, error) {
	return nil, refused("Connector", c.Name, validate.Connector(c, v.allowed))
}

// ValidateUpdate looks at a spec only when it changes: what was accepted once must not keep anybody from a label or a finalizer.
func (v connectors) ValidateUpdate(ctx context.Context, old, c *v1alpha1.Connector) (admission.Warnings, error) {
	if !c.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(old.Spec, c.Spec) {
		return nil, nil
	}
	return v.ValidateCreate(ctx, c)
}

func (connectors) ValidateDelete(context.Context, *v1alpha1.Connector) (admission.Warnings, error) {
	return nil, nil
}

// routes validates Routes.
type routes struct{}

func (routes) ValidateCreate(_ context.Context, r *v1alpha1.Route) (admission.Warnings, error) {
	return nil, refused("Route", r.Name, validate.Route(r))
}

func (routes) ValidateUpdate(_ context.Context, old, r *v1alpha1.Route) (admission.Warnings, error) {
	if !r.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(old.Spec, r.Spec) {
		return nil, nil
	}
	return nil, refused("Route", r.Name, append(validate.Route(r), validate.WeightChanges(old, r, time.Now())...))
}

func (routes) ValidateDelete(context.Context, *v1alpha1.Route) (admission.Warnings, error) {
	return nil, nil
}

func refused(kind, name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind(kind).GroupKind(), name, errs)
}
