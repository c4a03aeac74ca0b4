package broker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/children"
	"github.com/metip/metip/controllers/internal/conditions"
	"github.com/metip/metip/controllers/internal/outcome"
)

// accept checks what the schema cannot.
func (r *Reconciler) accept(_ context.Context, s *scope) error {
	if !s.managed() {
		return nil
	}
	if bad := children.ForbiddenAnnotations(s.broker.Spec.Managed.Template, r.AllowedAnnotations); len(bad) > 0 {
		return outcome.Refuse(v1alpha1.ReasonAnnotationNotAllowed,
			"spec.managed.template.annotations: %s may not be set: ask the administrator to add it to the operator's --allowed-pod-annotations",
			strings.Join(bad, ", "))
	}
	return checkSize(s)
}

// checkSize refuses numbers of servers that NATS answers by deleting streams: a single server's when it joins a cluster, and those
// that a smaller cluster does not know of. The number is noted beside the keys, so that it also holds for a Broker that takes up retained
// volumes.
func checkSize(s *scope) error {
	if s.keySecret == nil {
		return nil
	}
	had, err := strconv.Atoi(s.keySecret.Annotations[annotationServers])
	if err != nil {
		return nil //nolint:nilerr // nothing was noted
	}
	want := int(s.replicas())
	if want == had || (had > 1 && want > had) {
		return nil
	}
	return outcome.Refuse(v1alpha1.ReasonInvalidSpec,
		"spec.managed.replicas: the stored messages are those of %d server(s), and NATS would delete them in a Broker of %d: set replicas to %d, "+
			"or make a second Broker and move Integrations to it", had, want, had)
}

// resolve the keys or credentials and, with them, keep the session.
func (r *Reconciler) resolve(ctx context.Context, s *scope) error {
	params, err := r.params(ctx, s)
	if err != nil {
		if _, e := outcome.Of(err); e != nil {
			r.Sessions.Remove(s.key())
		}
		return err
	}
	if err := r.Sessions.Set(s.key(), params); err != nil {
		return err
	}
	s.connection, s.connected = r.Sessions.Connection(s.key())
	if s.connection.Live {
		s.health, s.healthErr = r.Sessions.Health(ctx, s.key())
	}
	return nil
}

// await leaves the status of a Broker that was connected as it is while a new session connects: the operator's restart is no news.
func await(_ context.Context, s *scope) error {
	if conditions.IsTrue(s.broker.Status.Conditions, v1alpha1.ConditionConnected, s.broker.Generation) && connecting(s) {
		return outcome.Hold(time.Second, "connecting")
	}
	return nil
}

func (r *Reconciler) params(ctx context.Context, s *scope) (bus.Params, error) {
	if s.managed() {
		if err := r.reconcileKeys(ctx, s); err != nil {
			return bus.Params{}, err
		}
		return bus.ManagedParams(s.keys, s.client(), r.storeEdgeClaims(s.key()))
	}
	external := s.broker.Spec.External
	name := types.NamespacedName{Namespace: r.OperatorNamespace, Name: external.Credentials.Name}
	if s.credentials == nil {
		return bus.Params{}, outcome.Wait(v1alpha1.ReasonCredentialsNotFound,
			"there is no Secret %s, which spec.external.credentials names: create it in the operator's namespace (docs/broker.md)", name)
	}
	broker := contract.Broker{URLs: strings.Split(external.URL, ","), Replicas: int(s.replicas()), Fsync: s.fsync()}
	params, err := bus.ExternalParams(s.credentials.Data, broker)
	if err != nil {
		return bus.Params{}, outcome.Wait(v1alpha1.ReasonCredentialsNotFound, "Secret %s: %w: see docs/broker.md", name, err)
	}
	return params, nil
}

// deploy the children of a managed Broker, and take the next step of a roll.
func (r *Reconciler) deploy(ctx context.Context, s *scope) error {
	if !s.managed() {
		return nil
	}
	if err := r.reconcileSettings(ctx, s); err != nil {
		return err
	}
	for _, child := range []client.Object{
		buildHeadlessService(s), buildClientService(s), buildDisruptionBudget(s), buildNetworkPolicy(s, r.OperatorNamespace),
	} {
		if _, err := r.Apply.Apply(ctx, s.broker, child); err != nil {
			return err
		}
	}
	if err := r.grow(ctx, s); err != nil {
		return err
	}
	servers := buildStatefulSet(s, r.Defaults)
	if _, err := r.Apply.Apply(ctx, s.broker, servers); err != nil {
		return err
	}
	s.servers = servers
	return r.roll(ctx, s)
}

// grow the volumes. A StatefulSet's claim template cannot change, so it is deleted without its pods and made again.
func (r *Reconciler) grow(ctx context.Context, s *scope) error {
	want := s.broker.Spec.Managed.Storage.Size
	for _, v := range toGrow(s) {
		before := v.DeepCopy()
		v.Spec.Resources.Requests[corev1.ResourceStorage] = want
		err := r.Client.Patch(ctx, &v, client.MergeFrom(before))
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			return outcome.Stall(v1alpha1.ReasonProgressing, "volume claim %s cannot grow to %s: %w: set spec.managed.storage.size back, or use a "+
				"StorageClass that allows expansion", v.Name, want.String(), err)
		}
		if err != nil {
			return fmt.Errorf("growing volume claim %s: %w", v.Name, err)
		}
	}
	if !templateIsSmall(s) {
		return nil
	}
	uid := s.servers.UID
	err := r.Client.Delete(ctx, s.servers, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationOrphan))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("replacing StatefulSet %s: %w", s.servers.Name, err)
	}
	return outcome.Wait(v1alpha1.ReasonProgressing, "volumes grow to %s: StatefulSet %s is made again, its pods stay", want.String(), s.servers.Name)
}

// roll takes one step. The eviction obeys the PodDisruptionBudget.
func (r *Reconciler) roll(ctx context.Context, s *scope) error {
	step := nextRoll(s)
	s.rolling = step.waits
	if step.replace == "" {
		return nil
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.broker.Namespace, Name: step.replace}}
	for i := range s.pods {
		if s.pods[i].Name == step.replace && !podReady(&s.pods[i]) {
			// The budget counts what is not ready as disrupted already, and would protect it for ever.
			return client.IgnoreNotFound(r.Client.Delete(ctx, pod, client.Preconditions{UID: &s.pods[i].UID}))
		}
	}
	err := r.Client.SubResource("eviction").Create(ctx, pod, &policyv1.Eviction{})
	if apierrors.IsTooManyRequests(err) {
		s.rolling += ": the PodDisruptionBudget does not allow it now"
		return nil
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
