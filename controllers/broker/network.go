package broker

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/metadata"
)

// buildNetworkPolicy lets in connectors of the namespaces that may use the Broker and the operator (clients), the servers themselves
// (cluster), and readers of metrics from labelled namespaces (monitor). The servers call each other and a name server, nobody else.
func buildNetworkPolicy(s *scope, operatorNamespace string) *networkingv1.NetworkPolicy {
	own := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: selector(s.broker.Name)}}
	dns := []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, 53), port(corev1.ProtocolTCP, 53)}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: s.meta(serversName(s.broker.Name)),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: selector(s.broker.Name)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, bus.PortClient)}, From: clientPeers(s.broker, operatorNamespace)},
				{Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, bus.PortCluster)}, From: []networkingv1.NetworkPolicyPeer{own}},
				{Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, bus.PortMonitor)}, From: []networkingv1.NetworkPolicyPeer{
					{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{metadata.LabelMetrics: metadata.MetricsAllowed}}},
				}},
			},
			Egress: []networkingv1.NetworkPolicyEgressRule{
				{Ports: dns},
				{Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, bus.PortCluster)}, To: []networkingv1.NetworkPolicyPeer{own}},
			},
		},
	}
}

// clientPeers are the operator's namespace and the connectors of the allowed namespaces.
func clientPeers(b *v1alpha1.Broker, operatorNamespace string) []networkingv1.NetworkPolicyPeer {
	connectors := &metav1.LabelSelector{MatchLabels: map[string]string{
		metadata.LabelComponent: "connector", metadata.LabelManagedBy: metadata.ManagedBy,
	}}
	peers := []networkingv1.NetworkPolicyPeer{
		{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: operatorNamespace}}},
		{PodSelector: connectors},
	}
	if b.Spec.AllowedNamespaces == nil {
		return peers
	}
	switch b.Spec.AllowedNamespaces.From {
	case v1alpha1.NamespacesFromAll:
		peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}, PodSelector: connectors})
	case v1alpha1.NamespacesFromSelector:
		peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: b.Spec.AllowedNamespaces.Selector.DeepCopy(), PodSelector: connectors})
	case v1alpha1.NamespacesFromSame:
	}
	return peers
}

func port(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Protocol: new(protocol), Port: new(intstr.FromInt32(number))}
}
