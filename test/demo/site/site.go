package site

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/caseapi"
	"github.com/metip/metip/test/demo/courtdb"
)

// Names in the manifests of config/samples/demo.
const (
	Namespace       = "custody-demo"
	Custody         = "custody"
	CustodyPath     = "/arrests"
	CourtDB         = "court-db"
	CaseAPI         = "case-api"
	Route           = "arrests-to-court"
	Lookup          = "custody-lookup"
	LookupPath      = "/court"
	LookupService   = "court-cases"
	LookupRoute     = "case-lookup"
	ToDatabase      = "database"
	ToCaseAPI       = "case-api"
	Integration     = "default"
	EventType       = "custody.arrest"
	CustodySecret   = "custody-token"
	DatabaseSecret  = "court-db-login"
	DatabaseCA      = "court-db-ca"
	CaseAPISecret   = "case-api-token"
	CaseAPIService  = "court-case-api"
	databaseService = courtdb.ServiceName
	fieldOwner      = client.FieldOwner("metip-test")
)

// Site is a namespace whose systems are there.
type Site struct {
	Cluster   *cluster.Cluster
	Namespace string
	// Tokens of those who post arrests, and of the connector towards the case API.
	CustodyToken, CaseAPIToken string
	Database                   *courtdb.Database
	CaseAPI                    *caseapi.Client
}

// New site in a namespace that exists. Tokens are kept when the namespace has them already, so that a second run changes nothing.
func New(ctx context.Context, c *cluster.Cluster, namespace string) (*Site, error) {
	s := &Site{Cluster: c, Namespace: namespace}
	for _, token := range []struct {
		secret string
		value  *string
	}{{CustodySecret, &s.CustodyToken}, {CaseAPISecret, &s.CaseAPIToken}} {
		there, err := s.Secret(ctx, token.secret)
		if err != nil {
			return nil, err
		}
		if *token.value = string(there["token"]); *token.value != "" {
			continue
		}
		*token.value = rand.Text()
		if err := s.SetSecret(ctx, token.secret, corev1.SecretTypeOpaque, map[string]string{"token": *token.value}); err != nil {
			return nil, err
		}
	}
	dialer := c.Dialer(namespace, CaseAPIService, 80)
	s.CaseAPI = &caseapi.Client{URL: "http://" + CaseAPIService, Token: s.CaseAPIToken, HTTP: dialer.HTTPClient(30 * time.Second)}
	return s, nil
}

// Close the connections to the database.
func (s *Site) Close() {
	if s.Database != nil {
		s.Database.Close()
	}
}

// CustodyDialer connects to the custody Connector's Service.
func (s *Site) CustodyDialer() *cluster.Dialer { return s.Cluster.Dialer(s.Namespace, Custody, 80) }

// LookupDialer connects to the Service of the Connector that answers what the court holds.
func (s *Site) LookupDialer() *cluster.Dialer { return s.Cluster.Dialer(s.Namespace, Lookup, 80) }

// UseDatabase makes a database on a server of this machine and tells the namespace where it is and how to log in. Its password is kept
// when the namespace has it already.
func (s *Site) UseDatabase(ctx context.Context, server *courtdb.Server, name string) error {
	if err := s.useDatabase(ctx, server, name); err != nil {
		return err
	}
	return s.pointDatabase(ctx, server.Host, int32(server.Port))
}

func (s *Site) useDatabase(ctx context.Context, server *courtdb.Server, name string) error {
	there, err := s.Secret(ctx, DatabaseSecret)
	if err != nil {
		return err
	}
	if s.Database, err = server.Create(ctx, name, string(there[corev1.BasicAuthPasswordKey])); err != nil {
		return err
	}
	if err := s.SetPassword(ctx, s.Database.Password); err != nil {
		return err
	}
	return s.SetDatabaseCA(ctx, server.CA)
}

// SetPassword that the connector logs in to the database with.
func (s *Site) SetPassword(ctx context.Context, password string) error {
	return s.SetSecret(ctx, DatabaseSecret, corev1.SecretTypeBasicAuth, map[string]string{
		corev1.BasicAuthUsernameKey: s.Database.Account, corev1.BasicAuthPasswordKey: password,
	})
}

// SetDatabaseCA that the connector checks the database's certificate against.
func (s *Site) SetDatabaseCA(ctx context.Context, pem string) error {
	return s.apply(ctx, &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: DatabaseCA},
		Data:       map[string]string{"ca.crt": pem},
	})
}

// pointDatabase makes a Service without selector for a server outside the cluster.
func (s *Site) pointDatabase(ctx context.Context, host string, port int32) error {
	name, ready := "postgres", true
	err := s.apply(ctx, &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: databaseService},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: name, Port: 5432, Protocol: corev1.ProtocolTCP}}},
	})
	return errors.Join(err, s.apply(ctx, &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: databaseService + "-outside", Labels: map[string]string{discoveryv1.LabelServiceName: databaseService},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{host}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}))
}

// Secret gives a Secret's data; empty when it is not there.
func (s *Site) Secret(ctx context.Context, name string) (map[string][]byte, error) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name}}
	_, err := s.Cluster.Exists(ctx, secret)
	return secret.Data, err
}

// SetSecret makes or changes a Secret.
func (s *Site) SetSecret(ctx context.Context, name string, kind corev1.SecretType, data map[string]string) error {
	return s.apply(ctx, &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		Type:       kind, StringData: data,
	})
}

// DeleteSecret that may be gone.
func (s *Site) DeleteSecret(ctx context.Context, name string) error {
	return client.IgnoreNotFound(s.Cluster.Client.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name}}))
}

func (s *Site) apply(ctx context.Context, object client.Object) error {
	//nolint:staticcheck // Apply wants generated apply configurations; a Patch of type Apply takes plain objects
	err := s.Cluster.Client.Patch(ctx, object, client.Apply, fieldOwner, client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("%s %s: %w", object.GetObjectKind().GroupVersionKind().Kind, object.GetName(), err)
	}
	return nil
}

// DeployCaseAPI from config/samples/demo/court, and wait until it answers.
func (s *Site) DeployCaseAPI(ctx context.Context) error {
	manifest, err := s.render("court/case-api.yaml", nil)
	if err != nil {
		return err
	}
	if err := s.Cluster.Apply(ctx, manifest); err != nil {
		return err
	}
	return s.Cluster.WaitDeployment(ctx, s.Namespace, CaseAPIService)
}

// RestartCaseAPI is for a case API that has to forget everything, its faults included.
func (s *Site) RestartCaseAPI(ctx context.Context) error {
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: CaseAPIService}}
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"restarted-at":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	if err := s.Cluster.Client.Patch(ctx, deployment, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return err
	}
	return s.Cluster.WaitDeployment(ctx, s.Namespace, CaseAPIService)
}

// CaseIDOf a message's id: an Idempotency-Key is the arrest's id and, after a dot, the run's stamp.
func CaseIDOf(messageID string) string {
	arrest, _, _ := strings.Cut(messageID, ".")
	return "C-" + arrest
}
