package broker

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/metadata"
)

const component = "broker"

// Labels and annotations of the Secret with a Broker's keys, which has no owner reference: it is in another namespace, and outlives a
// Broker that retains its data.
const (
	componentKeys        = "broker-keys"
	annotationBroker     = "bus.metip.dev/broker"
	annotationPolicy     = "bus.metip.dev/deletion-policy"
	annotationServers    = "bus.metip.dev/servers"
	annotationConfigHash = "bus.metip.dev/config-hash"
)

// serversName is the name of the StatefulSet, the PodDisruptionBudget and the NetworkPolicy. The client Service has the Broker's own name.
func serversName(broker string) string { return broker + "-broker" }

// headlessName is the name of the Service that gives each server a name.
func headlessName(broker string) string { return broker + "-servers" }

// keysName is the name of the Secret with a Broker's keys. Neither a namespace nor a Broker's name has a dot.
func keysName(broker types.NamespacedName) string {
	return "metip-broker." + broker.Namespace + "." + broker.Name
}

// clientURL names no cluster domain, which the operator does not know.
func clientURL(broker types.NamespacedName) string {
	return fmt.Sprintf("tls://%s.%s.svc:%d", broker.Name, broker.Namespace, bus.PortClient)
}

// serverHosts are the names by which the servers find each other.
func serverHosts(broker types.NamespacedName, replicas int32) []string {
	var hosts []string
	for i := range replicas {
		hosts = append(hosts, fmt.Sprintf("%s-%d.%s.%s.svc", serversName(broker.Name), i, headlessName(broker.Name), broker.Namespace))
	}
	return hosts
}

// certificateHosts are what the servers' certificate names: the client Service in all its forms, and any server.
func certificateHosts(broker types.NamespacedName) []string {
	return []string{
		broker.Name + "." + broker.Namespace + ".svc",
		broker.Name + "." + broker.Namespace,
		broker.Name,
		"*." + headlessName(broker.Name) + "." + broker.Namespace + ".svc",
		"localhost",
	}
}

// selector of a Broker's pods.
func selector(broker string) map[string]string {
	return map[string]string{metadata.LabelComponent: component, metadata.LabelBroker: broker}
}

// volumeName is the name of the volume claim template; Kubernetes adds the pod's name.
const volumeName = "data"

// settingsKey is a key of a Broker in the credentials Secret of its namespace.
func settingsKey(broker, file string) string { return "broker." + broker + "." + file }

// parseKey is the inverse of NamespacedName.String.
func parseKey(text string) (types.NamespacedName, bool) {
	namespace, name, ok := strings.Cut(text, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}, ok && namespace != "" && name != ""
}

// Files that the servers read.
const (
	fileConf = "nats.conf"
	fileCert = "tls.crt"
	fileKey  = "tls.key"
	fileCA   = "ca.crt"
)

// Where the servers find them, and their volume.
const (
	settingsDir = "/etc/metip/broker"
	dataDir     = "/data"
)
