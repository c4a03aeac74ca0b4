package broker

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
)

// scope is what the phases of a pass share. observe fills it; the phases add what they made.
type scope struct {
	broker *v1alpha1.Broker
	now    time.Time

	// keySecret holds a managed Broker's keys, in the operator's namespace; nil when there is none.
	keySecret *corev1.Secret
	// credentials of an external Broker, in the operator's namespace; nil when there are none.
	credentials *corev1.Secret
	// servers is the StatefulSet, or nil; pods and volumes are its own.
	servers *appsv1.StatefulSet
	pods    []corev1.Pod
	volumes []corev1.PersistentVolumeClaim
	// integrations that use this Broker.
	integrations int32

	// keys and certificates of a managed Broker.
	keys         *bus.Keys
	certificates bus.Certificates
	// configHash of what only a restart brings to a server.
	configHash string
	// rolling says what a roll, or the growth of volumes, waits for; empty when there is none.
	rolling string

	// connection of the operator, and what the servers say of themselves.
	connection bus.Connection
	connected  bool
	health     bus.Health
	healthErr  error
}

func (s *scope) key() types.NamespacedName { return client.ObjectKeyFromObject(s.broker) }

func (s *scope) managed() bool { return s.broker.Spec.Managed != nil }

// replicas is the number of servers that are wanted or, of an external Broker, that streams are kept on.
func (s *scope) replicas() int32 {
	var r *int32
	if s.managed() {
		r = s.broker.Spec.Managed.Replicas
	} else {
		r = s.broker.Spec.External.Replicas
	}
	if r == nil {
		return 1
	}
	return *r
}

// fsync tells whether the disk is flushed before every acknowledgement. Nobody knows of an external Broker; publishing one by one while few
// wait is then right in either case.
func (s *scope) fsync() bool {
	return !s.managed() || s.broker.Spec.Managed.Durability != v1alpha1.DurabilityReplicated
}

// client is what connectors, and the operator itself, are told of a managed Broker.
func (s *scope) client() contract.Broker {
	return contract.Broker{
		URLs: []string{clientURL(s.key())}, CA: string(s.certificates.Bundle), Replicas: int(s.replicas()), Fsync: s.fsync(),
	}
}
