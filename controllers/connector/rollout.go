package connector

import (
	"context"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
)

// reconcileRollout cleans up once every pod runs the present configuration: former users are revoked, former ConfigMaps deleted. Until then
// a pod of the former configuration may still start.
func (r *Reconciler) reconcileRollout(ctx context.Context, s *scope) error {
	if !rolledOut(s) {
		return nil
	}
	if s.retired != nil {
		if err := r.revokeRetired(ctx, s.key(), s.retired); err != nil {
			return err
		}
		s.retired = nil
	}
	list, err := r.configMaps(ctx, s.key())
	if err != nil {
		return err
	}
	for n := range list {
		hash := configOf(&list[n].ObjectMeta)
		if hash == "" || hash == s.config.Hash {
			continue
		}
		if _, err := r.Apply.Delete(ctx, s.owner(), &list[n]); err != nil {
			return err
		}
		r.Apply.Forget(list[n].Namespace, list[n].Name)
	}
	return nil
}

// rolledOut tells whether the Deployment has no pod but of the present configuration, terminating ones apart.
func rolledOut(s *scope) bool {
	d := s.deployment
	if d == nil || s.config.Hash == "" || s.deployedHash() != s.config.Hash || d.Status.ObservedGeneration < d.Generation {
		return false
	}
	if d.Status.UpdatedReplicas < wantedReplicas(d) || d.Status.Replicas > d.Status.UpdatedReplicas {
		return false
	}
	for i := range s.pods {
		if configOf(&s.pods[i].ObjectMeta) != s.config.Hash {
			return false
		}
	}
	return true
}

func wantedReplicas(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

const (
	// refreshEvery is how often a pod that misses credentials, or whose credentials are refused, is annotated at most; after a while
	// it is done more rarely.
	refreshEvery    = 10 * time.Second
	refreshSlow     = 30 * time.Second
	refreshSlowFrom = 10 * time.Minute
)

// refresher remembers when pods were annotated.
type refresher struct {
	mu   sync.Mutex
	pods map[types.NamespacedName]map[types.UID]refresh
}

type refresh struct{ first, last time.Time }

func newRefresher() *refresher {
	return &refresher{pods: map[types.NamespacedName]map[types.UID]refresh{}}
}

// due is how long a pod must still wait; zero means now, which is noted.
func (r *refresher) due(connector types.NamespacedName, pod types.UID, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[connector] == nil {
		r.pods[connector] = map[types.UID]refresh{}
	}
	p := r.pods[connector][pod]
	if p.first.IsZero() {
		p.first = now
	}
	every := refreshEvery
	if now.Sub(p.first) > refreshSlowFrom {
		every = refreshSlow
	}
	if wait := every - now.Sub(p.last); wait > 0 {
		return wait
	}
	p.last = now
	r.pods[connector][pod] = p
	return 0
}

// recovered forgets the pods that need no refresh any more.
func (r *refresher) recovered(connector types.NamespacedName, failing map[types.UID]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pod := range r.pods[connector] {
		if !failing[pod] {
			delete(r.pods[connector], pod)
		}
	}
}

func (r *refresher) forget(connector types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, connector)
}

// reconcileRefresh annotates pods whose report says that credentials are missing or refused: the kubelet then reads the mounted Secrets at
// once, instead of within two minutes.
func (r *Reconciler) reconcileRefresh(ctx context.Context, s *scope) error {
	failing := map[types.UID]bool{}
	for i := range s.pods {
		pod := &s.pods[i]
		if !needsSecrets(s, pod.Name) {
			continue
		}
		failing[pod.UID] = true
		if wait := r.refreshed.due(s.key(), pod.UID, s.now); wait > 0 {
			s.again(wait)
			continue
		}
		s.again(refreshEvery)
		if err := r.annotate(ctx, pod, s.now); err != nil {
			return err
		}
	}
	r.refreshed.recovered(s.key(), failing)
	return nil
}

func (r *Reconciler) annotate(ctx context.Context, pod *corev1.Pod, now time.Time) error {
	before := pod.DeepCopy()
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[contract.PodAnnotationRefresh] = now.UTC().Format(time.RFC3339)
	return client.IgnoreNotFound(r.Client.Patch(ctx, pod, client.MergeFrom(before)))
}

func needsSecrets(s *scope, pod string) bool {
	for _, p := range s.reports {
		if p.Pod == pod && !p.Report.Draining {
			return secretReason(p.Report.System) || secretReason(p.Report.Bus)
		}
	}
	return false
}

func secretReason(s contract.State) bool {
	switch s.Reason {
	case contract.ReasonCredentialsMissing, contract.ReasonAuthenticationFailed, contract.ReasonCertificateInvalid:
		return !s.OK
	}
	return false
}
