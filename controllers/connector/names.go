package connector

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/controllers/internal/metadata"
)

// labels of a Connector's children.
func labels(connector, integration string) map[string]string {
	return metadata.Labels("connector", metadata.LabelConnector, connector, map[string]string{metadata.LabelIntegration: integration})
}

// selector of a Connector's pods.
func selector(connector string) map[string]string {
	return map[string]string{metadata.LabelConnector: connector}
}

// configOf a pod or ConfigMap: the hash of its configuration.
func configOf(m *metav1.ObjectMeta) string { return m.Labels[metadata.LabelConfig] }

// parseName is the inverse of NamespacedName.String.
func parseName(s string) types.NamespacedName {
	namespace, name, _ := strings.Cut(s, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}
