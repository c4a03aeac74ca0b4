package connector

import (
	"net"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/metadata"
)

// defaultBrokerPort of NATS.
const defaultBrokerPort = 4222

// buildNetworkPolicy lets in callers of the listener (everybody, unless http.allowFrom says who) and readers of metrics from labelled
// namespaces. It lets out name resolution; to pods, any port, because a Service's port has been translated to the pod's when the policy
// looks; to other addresses the ports of the broker, of the system and of the traces' collector, but not to link-local ones, where clouds keep their metadata
// service. Host names it cannot express: the connector checks those when it dials.
func buildNetworkPolicy(s *scope, d Defaults) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{
		ObjectMeta: s.meta(metadata.ConnectorName(s.connector.Name)),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: selector(s.connector.Name)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{metadata.LabelMetrics: metadata.MetricsAllowed},
				}}},
				Ports: ports(corev1.ProtocolTCP, contract.PortHealth),
			}},
		},
	}
	if s.system.Listens {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From: s.system.AllowFrom, Ports: ports(corev1.ProtocolTCP, contract.PortListener),
		})
	}
	dns := networkingv1.NetworkPolicyEgressRule{Ports: append(ports(corev1.ProtocolUDP, 53), ports(corev1.ProtocolTCP, 53)...)}
	call := append(brokerPorts(s.config.Broker.URLs), s.system.Ports...)
	call = append(call, collectorPorts(d.Env)...)
	slices.Sort(call)
	pods := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}}
	quiet := s.relayOf != nil || s.connector.Spec.Service != nil && len(s.system.Ports) == 0
	if quiet && s.area.Broker != nil && s.area.Broker.Spec.Managed != nil { // it calls nothing but the broker, whose port is the same everywhere
		pods.Ports = ports(corev1.ProtocolTCP, slices.Compact(call)...)
	}
	p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{dns, pods, {
		Ports: ports(corev1.ProtocolTCP, slices.Compact(call)...),
		To: []networkingv1.NetworkPolicyPeer{
			{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"169.254.0.0/16"}}},
			{IPBlock: &networkingv1.IPBlock{CIDR: "::/0", Except: []string{"fe80::/10"}}},
		},
	}}
	return p
}

func ports(protocol corev1.Protocol, numbers ...int32) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for _, n := range numbers {
		out = append(out, networkingv1.NetworkPolicyPort{Protocol: new(protocol), Port: new(intstr.FromInt32(n))})
	}
	return out
}

func brokerPorts(urls []string) []int32 {
	var out []int32
	for _, raw := range urls {
		out = append(out, brokerPort(raw))
	}
	return out
}

// collectorPorts is the port of the collector that the environment names, if it names one.
func collectorPorts(env []corev1.EnvVar) []int32 {
	for _, v := range env {
		if u, err := url.Parse(v.Value); v.Name == contract.EnvCollectorEndpoint && err == nil {
			n, err := strconv.ParseUint(u.Port(), 10, 16)
			switch {
			case err == nil:
				return []int32{int32(n)}
			case u.Scheme == "https":
				return []int32{443}
			default:
				return []int32{80}
			}
		}
	}
	return nil
}

func brokerPort(raw string) int32 {
	if u, err := url.Parse(raw); err == nil {
		if _, text, err := net.SplitHostPort(u.Host); err == nil {
			if n, err := strconv.ParseUint(text, 10, 16); err == nil {
				return int32(n)
			}
		}
	}
	return defaultBrokerPort
}
