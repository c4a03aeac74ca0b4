package connector

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/systems"
)

// scope is what the phases of a pass share. observe fills it; the phases add what they made.
type scope struct {
	connector *v1alpha1.Connector
	// relayOf is the Integration whose relay this is; connector is then one that nobody has written (refs.Relay).
	relayOf *v1alpha1.Integration
	system  systems.System
	now     time.Time

	// area is the Integration with its Broker; areaErr says what it lacks.
	area    refs.Area
	areaErr error
	// resolved is the Connector with the text of its schema. What is missing or invalid of that is unresolved: then it is the text that runs.
	resolved   *v1alpha1.Connector
	unresolved error
	// running is the configuration that the pods run, once it has been read.
	running *contract.Config
	// attached is the number of Routes that name the Connector; routes are the destinations that end in it, and made the calls that begin in
	// it, compiled.
	attached int
	routes   []contract.Route
	made     []contract.Call

	// deployment as it is, or nil; pods are its pods that are not terminating; reports are what all pods said lately.
	deployment *appsv1.Deployment
	pods       []corev1.Pod
	reports    []bus.PodReport

	// config that the pods should run, compiled, and its JSON; empty when the phases did not come so far.
	config     contract.Config
	configJSON []byte
	// settling is how long the configuration must still stay as it is before it is rolled out.
	settling time.Duration

	record  *credentials.Record
	retired *credentials.Retired

	// requeue is when the pass wants to be run again.
	requeue time.Duration
}

func (s *scope) key() types.NamespacedName { return client.ObjectKeyFromObject(s.connector) }

// owner of the children.
func (s *scope) owner() client.Object {
	if s.relayOf != nil {
		return s.relayOf
	}
	return s.connector
}

// isSink tells the role.
func (s *scope) isSink() bool { return s.connector.Spec.Sink != nil }

// runsRoutes tells whether Routes run in the pods: they end in a sink, and calls begin in a source whose requests are answered.
func (s *scope) runsRoutes() bool { return s.isSink() || systems.Answers(s.connector) }

// again asks for another pass.
func (s *scope) again(after time.Duration) {
	if s.requeue == 0 || after < s.requeue {
		s.requeue = after
	}
}

// deployedHash is the configuration that the Deployment's pods are to run; empty when there is none.
func (s *scope) deployedHash() string {
	if s.deployment == nil {
		return ""
	}
	return configOf(&s.deployment.Spec.Template.ObjectMeta)
}

// wantedHash is the configuration that was compiled or, when the phases did not come so far, the deployed one.
func (s *scope) wantedHash() string {
	if s.config.Hash != "" {
		return s.config.Hash
	}
	return s.deployedHash()
}
