package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/controllers/internal/metadata"
)

// The names of config/webhook and config/rbac, which grant exactly these.
const (
	// SecretName holds the certificate, in the operator's namespace.
	SecretName = "metip-webhook-certificate"
	// ServiceName is what the API server calls.
	ServiceName = "metip-webhook"
	// MetricsServiceName is what Prometheus calls; the certificate serves it too.
	MetricsServiceName = "metip-metrics"
	// ConfigurationName is the ValidatingWebhookConfiguration that is told of the authorities.
	ConfigurationName = "metip"
)

const (
	keyCA = "ca.crt"
	// lookEvery is how often the Secret and the configuration are looked at: another replica may have rotated, somebody may have
	// applied the manifests anew.
	lookEvery  = time.Minute
	retryAfter = 5 * time.Second
)

// Rotator makes, keeps and rotates the certificate. All replicas run one; whoever is first writes.
type Rotator struct {
	// Client reads and writes without a cache.
	Client    client.Client
	Namespace string
	// Hosts that the certificate names beside those of the Services.
	Hosts []string
	// Now is the clock.
	Now func() time.Time

	serving atomic.Pointer[tls.Certificate]
}

// NewRotator for the operator's namespace.
func NewRotator(c client.Client, namespace string) *Rotator {
	return &Rotator{Client: c, Namespace: namespace, Now: time.Now}
}

// NeedLeaderElection says no: every replica serves.
func (*Rotator) NeedLeaderElection() bool { return false }

// GetCertificate is for tls.Config.
func (r *Rotator) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := r.serving.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("the certificate is not made yet")
}

// Configure a server.
func (r *Rotator) Configure(c *tls.Config) {
	c.GetCertificate = r.GetCertificate
	c.MinVersion = tls.VersionTLS12
}

// Expires tells when the certificate that is served ends; the zero time when there is none.
func (r *Rotator) Expires() time.Time {
	if c := r.serving.Load(); c != nil {
		return c.Leaf.NotAfter
	}
	return time.Time{}
}

// Start looks after the certificate until ctx ends (manager.Runnable).
func (r *Rotator) Start(ctx context.Context) error {
	log := ctrl.LoggerFrom(ctx).WithName("certificate")
	for {
		next := lookEvery
		if err := r.Ensure(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			log.Error(err, "looking after the webhook's certificate")
			next = retryAfter
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

// Ensure that there is a certificate that lasts, that the API server trusts its authority, and then serve it.
func (r *Rotator) Ensure(ctx context.Context) error {
	b, pair, err := r.current(ctx)
	if err != nil {
		return err
	}
	if err := r.announce(ctx, b.ca); err != nil {
		return err
	}
	r.serving.Store(pair)
	return nil
}

func (r *Rotator) names() []string {
	out := slices.Clone(r.Hosts)
	for _, service := range []string{ServiceName, MetricsServiceName} {
		out = append(out, service+"."+r.Namespace+".svc", service+"."+r.Namespace+".svc.cluster.local")
	}
	return out
}

// current certificate from the Secret, made or replaced if need be.
func (r *Rotator) current(ctx context.Context) (bundle, *tls.Certificate, error) {
	secret := &corev1.Secret{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: SecretName}, secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return bundle{}, nil, fmt.Errorf("reading Secret %s: %w", SecretName, err)
	}
	b := bundle{ca: secret.Data[keyCA], cert: secret.Data[corev1.TLSCertKey], key: secret.Data[corev1.TLSPrivateKeyKey]}
	if pair, err := b.load(r.names(), r.Now()); err == nil {
		return b, pair, nil
	}
	fresh, err := newBundle(r.names(), b.ca, r.Now())
	if err != nil {
		return bundle{}, nil, err
	}
	if err := r.store(ctx, secret, fresh); err != nil {
		return bundle{}, nil, fmt.Errorf("writing Secret %s: %w", SecretName, err)
	}
	pair, err := fresh.load(r.names(), r.Now())
	return fresh, pair, err
}

// store a bundle, unless another replica was faster: then the next look finds that one's.
func (r *Rotator) store(ctx context.Context, secret *corev1.Secret, b bundle) error {
	exists := secret.ResourceVersion != ""
	secret.Namespace, secret.Name = r.Namespace, SecretName
	secret.Labels = map[string]string{metadata.LabelManagedBy: metadata.ManagedBy, metadata.LabelPartOf: metadata.PartOf}
	secret.Data = map[string][]byte{keyCA: b.ca, corev1.TLSCertKey: b.cert, corev1.TLSPrivateKeyKey: b.key}
	if exists {
		return r.Client.Update(ctx, secret)
	}
	secret.Type = corev1.SecretTypeTLS
	return r.Client.Create(ctx, secret)
}

// announce the authorities to the API server. Without the configuration there is no webhook, and nothing to announce.
func (r *Rotator) announce(ctx context.Context, ca []byte) error {
	config := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: ConfigurationName}}
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(config), config); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := config.DeepCopy()
	changed := false
	for i := range config.Webhooks {
		if c := &config.Webhooks[i].ClientConfig; !bytes.Equal(c.CABundle, ca) {
			c.CABundle, changed = ca, true
		}
	}
	if !changed {
		return nil
	}
	if err := r.Client.Patch(ctx, config, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("announcing the authority in ValidatingWebhookConfiguration %s: %w", ConfigurationName, err)
	}
	return nil
}
