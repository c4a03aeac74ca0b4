package operator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	. "github.com/onsi/ginkgo/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
)

// pods plays the kubelet and the connector pods of every Deployment: it makes pods from the template (which Pod Security admits or not),
// rolls them, collects what has lost its owner, and reports with the credentials that the operator wrote.
type pods struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	// says is what a connector's pods report of their system, and routes what they report of Routes; silent ones report nothing.
	says   map[types.NamespacedName]contract.State
	routes map[types.NamespacedName][]contract.RouteState
	silent map[types.NamespacedName]bool
	// stuck connectors keep the pods that they have.
	stuck map[types.NamespacedName]bool
	// lingering connectors keep former pods at work beside new ones.
	lingering map[types.NamespacedName]bool
	// unready connectors have pods that run and never become ready.
	unready map[types.NamespacedName]bool
	voice   map[string]*nats.Conn
	sent    map[string]string
	count   map[string]uint64
	at      map[string]time.Time
}

func startPods() *pods {
	p := &pods{
		done: make(chan struct{}), says: map[types.NamespacedName]contract.State{}, routes: map[types.NamespacedName][]contract.RouteState{},
		silent: map[types.NamespacedName]bool{}, stuck: map[types.NamespacedName]bool{}, lingering: map[types.NamespacedName]bool{}, unready: map[types.NamespacedName]bool{},
		voice: map[string]*nats.Conn{}, sent: map[string]string{}, count: map[string]uint64{}, at: map[string]time.Time{},
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			if err := p.pass(ctx); err != nil && ctx.Err() == nil {
				_, _ = fmt.Fprintln(GinkgoWriter, "pods:", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return p
}

func (p *pods) stop() {
	p.cancel()
	<-p.done
}

// say what the pods of a connector report of their system from now on.
func (p *pods) say(ns, connector string, s contract.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.says[types.NamespacedName{Namespace: ns, Name: connector}] = s
}

// sayRoutes is what they report of Routes.
func (p *pods) sayRoutes(ns, connector string, routes ...contract.RouteState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routes[types.NamespacedName{Namespace: ns, Name: connector}] = routes
}

// hold the pods of a connector as they are, or let them be rolled again.
func (p *pods) hold(ns, connector string, hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck[types.NamespacedName{Namespace: ns, Name: connector}] = hold
}

// fail makes a connector's pods run without becoming ready, or ends that.
func (p *pods) fail(ns, name string, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unready[types.NamespacedName{Namespace: ns, Name: name}] = on
}

// linger: former pods of a connector stay at work beside new ones, or end at last.
func (p *pods) linger(ns, connector string, linger bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lingering[types.NamespacedName{Namespace: ns, Name: connector}] = linger
}

// silence the pods of a connector.
func (p *pods) silence(ns, connector string, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent[types.NamespacedName{Namespace: ns, Name: connector}] = silent
}

func (p *pods) pass(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var deployments appsv1.DeploymentList
	if err := api.List(ctx, &deployments, client.MatchingLabels{"app.kubernetes.io/component": "connector"}); err != nil {
		return err
	}
	var list corev1.PodList
	if err := api.List(ctx, &list, client.MatchingLabels{"app.kubernetes.io/component": "connector"}); err != nil {
		return err
	}
	var errs []error
	seen := map[types.UID]bool{}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		orphan, err := p.orphan(ctx, d)
		if err != nil || orphan {
			errs = append(errs, err)
			continue
		}
		seen[d.UID] = true
		errs = append(errs, p.roll(ctx, d, list.Items))
	}
	for i := range list.Items {
		if ref := metav1.GetControllerOf(&list.Items[i]); ref == nil || !seen[ref.UID] {
			errs = append(errs, client.IgnoreNotFound(api.Delete(ctx, &list.Items[i], client.GracePeriodSeconds(0))))
			p.hush(string(list.Items[i].UID))
		}
	}
	return errors.Join(errs...)
}

// orphan deletes a Deployment whose Connector is gone, as Kubernetes' garbage collector does.
func (p *pods) orphan(ctx context.Context, d *appsv1.Deployment) (bool, error) {
	ref := metav1.GetControllerOf(d)
	if ref == nil {
		return true, nil // somebody else's
	}
	owner := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: ref.APIVersion, Kind: ref.Kind}}
	err := api.Get(ctx, types.NamespacedName{Namespace: d.Namespace, Name: ref.Name}, owner)
	if apierrors.IsNotFound(err) || err == nil && owner.UID != ref.UID {
		return true, client.IgnoreNotFound(api.Delete(ctx, d))
	}
	return false, err
}

// roll a Deployment to its template at once, and say so in its status.
func (p *pods) roll(ctx context.Context, d *appsv1.Deployment, list []corev1.Pod) error {
	connector := types.NamespacedName{Namespace: d.Namespace, Name: d.Labels["bus.metip.dev/connector"]}
	if p.stuck[connector] {
		for i := range list {
			if metav1.IsControlledBy(&list[i], d) {
				p.report(ctx, connector, &list[i])
			}
		}
		return nil
	}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	have := int32(0)
	for i := range list {
		pod := &list[i]
		if !metav1.IsControlledBy(pod, d) {
			continue
		}
		former := pod.Labels["bus.metip.dev/config"] != d.Spec.Template.Labels["bus.metip.dev/config"]
		if former && p.lingering[connector] {
			p.report(ctx, connector, pod)
			continue
		}
		if former || have >= want {
			p.hush(string(pod.UID))
			if err := client.IgnoreNotFound(api.Delete(ctx, pod, client.GracePeriodSeconds(0))); err != nil {
				return err
			}
			continue
		}
		have++
		p.report(ctx, connector, pod)
	}
	for ; have < want; have++ {
		if err := p.start(ctx, d); err != nil {
			return err
		}
	}
	available := want
	if p.unready[connector] {
		available = 0
	}
	return p.deployed(ctx, d, want, available)
}

func (p *pods) start(ctx context.Context, d *appsv1.Deployment) error {
	pod := &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: *d.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.GenerateName = d.Namespace, d.Name+"-"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
	if err := api.Create(ctx, pod); err != nil {
		return err
	}
	now := metav1.Now()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
	return api.Status().Update(ctx, pod)
}

func (p *pods) deployed(ctx context.Context, d *appsv1.Deployment, want, available int32) error {
	s := appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, Replicas: want, UpdatedReplicas: want, ReadyReplicas: available, AvailableReplicas: available,
	}
	if d.Status.ObservedGeneration == s.ObservedGeneration && d.Status.AvailableReplicas == available && d.Status.Replicas == want {
		return nil
	}
	d.Status = s
	return client.IgnoreNotFound(api.Status().Update(ctx, d))
}

// report as a connector pod does: on every change and every few seconds.
func (p *pods) report(ctx context.Context, connector types.NamespacedName, pod *corev1.Pod) {
	if p.silent[connector] {
		return
	}
	id := string(pod.UID)
	state, ok := p.says[connector]
	if !ok {
		state = contract.State{OK: true}
	}
	now := fmt.Sprint(state, p.routes[connector])
	if p.sent[id] == now && time.Since(p.at[id]) < 2*time.Second {
		return
	}
	nc := p.voice[id]
	if nc == nil || nc.IsClosed() { // refused: the operator has written another credential
		var err error
		if nc, err = p.login(ctx, connector); err != nil {
			return
		}
		p.voice[id] = nc
	}
	p.count[id]++
	data, _ := json.Marshal(contract.Report{
		ConfigHash: pod.Labels["bus.metip.dev/config"], Started: pod.CreationTimestamp.Time, Sequence: p.count[id],
		System: state, Bus: contract.State{OK: true}, Routes: p.routes[connector],
	})
	if err := nc.Publish(contract.StatusSubject(connector.Namespace, connector.Name, pod.Name), data); err == nil {
		p.sent[id], p.at[id] = now, time.Now()
	}
}

// login with what the operator wrote for the connector.
func (p *pods) login(ctx context.Context, connector types.NamespacedName) (*nats.Conn, error) {
	creds, err := credentialsOf(ctx, connector.Namespace, connector.Name)
	if err != nil {
		return nil, err
	}
	return dial(creds, nats.CustomInboxPrefix(contract.InboxPrefix(connector.Namespace, connector.Name)))
}

func (p *pods) hush(id string) {
	if nc := p.voice[id]; nc != nil {
		nc.Close()
	}
	delete(p.voice, id)
}

// credentialsOf a connector from the Secret.
func credentialsOf(ctx context.Context, ns, connector string) ([]byte, error) {
	secret := &corev1.Secret{}
	if err := api.Get(ctx, types.NamespacedName{Namespace: ns, Name: contract.CredentialsSecret}, secret); err != nil {
		return nil, err
	}
	creds := secret.Data[connector+".creds"]
	if len(creds) == 0 {
		return nil, fmt.Errorf("no key %s.creds", connector)
	}
	return creds, nil
}

// dial the suite's broker with credentials in .creds format.
func dial(creds []byte, options ...nats.Option) (*nats.Conn, error) {
	token, err := nkeys.ParseDecoratedJWT(creds)
	if err != nil {
		return nil, err
	}
	pair, err := nkeys.ParseDecoratedUserNKey(creds)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(broker.Client().CA))
	options = append([]nats.Option{
		nats.UserJWT(func() (string, error) { return token, nil }, pair.Sign),
		nats.Secure(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}),
		nats.ReconnectWait(100 * time.Millisecond), nats.MaxReconnects(-1),
	}, options...)
	return nats.Connect(broker.URL(), options...)
}

// accepted tells whether the broker takes credentials.
func accepted(creds []byte) error {
	nc, err := dial(creds)
	if err == nil {
		nc.Close()
	}
	return err
}
