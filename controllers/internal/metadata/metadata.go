package metadata

import (
	"maps"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/metip/metip/connectors/contract"
)

// Labels of children. Those under app.kubernetes.io are the recommended ones.
const (
	LabelName      = "app.kubernetes.io/name"
	LabelInstance  = "app.kubernetes.io/instance"
	LabelComponent = "app.kubernetes.io/component"
	LabelPartOf    = "app.kubernetes.io/part-of"
	// LabelManagedBy with ManagedBy is on every child; the operator's caches hold nothing else.
	LabelManagedBy = "app.kubernetes.io/managed-by"

	// LabelConnector, LabelBroker and LabelIntegration name the object that a child belongs to.
	LabelConnector   = "bus.metip.dev/connector"
	LabelBroker      = "bus.metip.dev/broker"
	LabelIntegration = "bus.metip.dev/integration"
	// LabelConfig is on connector pods and ConfigMaps: the hash of the configuration.
	LabelConfig = "bus.metip.dev/config"
	// LabelMetrics with MetricsAllowed is on namespaces whose pods may read metrics.
	LabelMetrics = "metrics"

	ManagedBy      = "metip"
	PartOf         = "metip"
	MetricsAllowed = "enabled"
)

// Annotations of children.
const (
	// AnnotationApplied is a digest of what the operator applied, so that nothing is written when nothing changed.
	AnnotationApplied = "bus.metip.dev/applied"
	// AnnotationRoutes is on a connector's ConfigMap: which Routes it holds, as a JSON object from route/destination to digest.
	AnnotationRoutes = "bus.metip.dev/routes"
	// AnnotationUserPrefix and a Connector's name is an annotation of the credentials Secret: that Connector's user, without its secret.
	AnnotationUserPrefix = "user.bus.metip.dev/"
)

// FinalizerIntegration is the only finalizer there is.
const FinalizerIntegration = "bus.metip.dev/integration"

// FieldOwner of the operator's server-side apply.
const FieldOwner = "metip"

// ManagedSelector selects what the operator made.
func ManagedSelector() labels.Selector {
	return labels.SelectorFromSet(labels.Set{LabelManagedBy: ManagedBy})
}

// Labels of a child of an object: component is what the child is for (broker, connector), owner the label that names the object.
func Labels(component, ownerLabel, ownerName string, more ...map[string]string) map[string]string {
	out := map[string]string{
		LabelName:      "metip-" + component,
		LabelInstance:  ownerName,
		LabelComponent: component,
		LabelPartOf:    PartOf,
		LabelManagedBy: ManagedBy,
		ownerLabel:     ownerName,
	}
	for _, m := range more {
		maps.Copy(out, m)
	}
	return out
}

// ConnectorName is the name of a Connector's children: Deployment, ServiceAccount, NetworkPolicy. (Its Service has the Connector's own.)
// Those of an Integration's relay are called <integration>-relay.
func ConnectorName(connector string) string {
	if integration, ok := contract.RelayOf(connector); ok {
		return integration + "-relay"
	}
	return connector + "-connector"
}

// ConfigName is the name of a Connector's or a relay's ConfigMap.
func ConfigName(connector, hash string) string {
	if integration, ok := contract.RelayOf(connector); ok {
		connector = integration + "-relay"
	}
	return connector + "-" + hash
}
