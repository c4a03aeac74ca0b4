package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/children"
	"github.com/metip/metip/controllers/internal/metadata"
)

// Defaults of server pods, from the operator's flags.
type Defaults struct {
	// Image of the pods, which holds /nats-server.
	Image           string
	ImagePullPolicy corev1.PullPolicy
	// Resources of pods whose template has none.
	Resources corev1.ResourceRequirements
	// FixedGroup gives volumes to a fixed group. Not on OpenShift, which chooses the group itself and refuses any other.
	FixedGroup bool
}

// DefaultResources of a server. Message ids of the de-duplication window are in memory, which is what the limit is for.
func DefaultResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
}

const (
	// fileShare is the part of a volume that streams may use; the servers' own journals and indexes need the rest.
	fileShare = 0.8
	// memoryShare is the part of the memory limit at which the garbage collector works harder.
	memoryShare = 0.85
	// volumeGroup owns the volumes where FixedGroup is set; it is the image's group.
	volumeGroup = int64(65532)
	// gracePeriod of a server: its leaders and clients move away in 30 s.
	gracePeriod = 60
)

func (s *scope) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: s.broker.Namespace, Name: name, Labels: metadata.Labels(component, metadata.LabelBroker, s.broker.Name),
	}
}

// serverConfig is nats.conf. Its limit follows the smallest volume that there is, not the one that is wanted: volumes grow later.
func serverConfig(s *scope) bus.ServerConfig {
	operator, system := s.keys.Operator()
	return bus.ServerConfig{
		Cluster: s.broker.Namespace + "-" + s.broker.Name,
		Routes:  serverHosts(s.key(), s.replicas()), Fsync: s.fsync(), MaxFileStore: maxFileStore(s),
		DataDir: dataDir, TLSDir: settingsDir,
		OperatorJWT: operator, SystemAccount: system, Preload: s.keys.Preload(),
	}
}

func maxFileStore(s *scope) int64 {
	size := s.broker.Spec.Managed.Storage.Size.Value()
	for i := range s.volumes {
		if capacity, ok := s.volumes[i].Status.Capacity[corev1.ResourceStorage]; ok {
			size = min(size, capacity.Value())
		}
	}
	return int64(float64(size) * fileShare)
}

// buildSettings are the files that the servers read, and the hash of what only a restart brings to them: claims of accounts are told
// to running servers.
func buildSettings(s *scope) (files map[string][]byte, hash string) {
	conf := serverConfig(s)
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(conf.Static()), s.certificates.Cert, s.certificates.Bundle} {
		fmt.Fprintf(sum, "%d:", len(part))
		sum.Write(part)
	}
	return map[string][]byte{
		settingsKey(s.broker.Name, fileConf): []byte(conf.Render()),
		settingsKey(s.broker.Name, fileCert): s.certificates.Cert,
		settingsKey(s.broker.Name, fileKey):  s.certificates.Key,
		settingsKey(s.broker.Name, fileCA):   s.certificates.Bundle,
	}, hex.EncodeToString(sum.Sum(nil)[:8])
}

// buildClientService is what connectors and the operator call.
func buildClientService(s *scope) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: s.meta(s.broker.Name),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: selector(s.broker.Name), Ports: []corev1.ServicePort{servicePort("nats", bus.PortClient)},
		},
	}
}

// buildHeadlessService names each server, ready or not: a cluster forms from servers that are not ready yet.
func buildHeadlessService(s *scope) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: s.meta(headlessName(s.broker.Name)),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true, Selector: selector(s.broker.Name),
			Ports: []corev1.ServicePort{servicePort("nats", bus.PortClient), servicePort("cluster", bus.PortCluster), servicePort("monitor", bus.PortMonitor)},
		},
	}
}

func servicePort(name string, port int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(port)}
}

// buildDisruptionBudget lets nodes be drained one at a time.
func buildDisruptionBudget(s *scope) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: s.meta(serversName(s.broker.Name)),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: selector(s.broker.Name)},
		},
	}
}

// buildStatefulSet runs the servers. Pods are replaced by the controller, one at a time (OnDelete); they start together, since a
// cluster needs a majority.
func buildStatefulSet(s *scope, d Defaults) *appsv1.StatefulSet {
	managed := s.broker.Spec.Managed
	pod := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      metadata.Labels(component, metadata.LabelBroker, s.broker.Name),
			Annotations: map[string]string{annotationConfigHash: s.configHash},
		},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			SecurityContext:               children.PodSecurityContext(),
			TerminationGracePeriodSeconds: new(int64(gracePeriod)),
			Containers:                    []corev1.Container{buildContainer(s, d)},
			Volumes:                       []corev1.Volume{settingsVolume(s.broker.Name)},
		},
	}
	if d.FixedGroup {
		pod.Spec.SecurityContext.FSGroup = new(volumeGroup)
		pod.Spec.SecurityContext.FSGroupChangePolicy = new(corev1.FSGroupChangeOnRootMismatch)
	}
	children.Customize(&pod, managed.Template)
	limitMemory(&pod.Spec.Containers[0])
	retention := appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	if managed.DeletionPolicy == v1alpha1.DeletionPolicyDelete {
		retention = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	return &appsv1.StatefulSet{
		ObjectMeta: s.meta(serversName(s.broker.Name)),
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(s.replicas()), ServiceName: headlessName(s.broker.Name),
			PodManagementPolicy: appsv1.ParallelPodManagement,
			UpdateStrategy:      appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
			Selector:            &metav1.LabelSelector{MatchLabels: selector(s.broker.Name)},
			Template:            pod,
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: retention, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{buildClaim(s)},
		},
	}
}

func buildClaim(s *scope) corev1.PersistentVolumeClaim {
	storage := s.broker.Spec.Managed.Storage
	return corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: volumeName, Labels: metadata.Labels(component, metadata.LabelBroker, s.broker.Name)},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: storage.ClassName,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: storage.Size}},
		},
	}
}

// settingsVolume mounts the keys of this Broker alone.
func settingsVolume(broker string) corev1.Volume {
	var items []corev1.KeyToPath
	for _, file := range []string{fileConf, fileCert, fileKey, fileCA} {
		items = append(items, corev1.KeyToPath{Key: settingsKey(broker, file), Path: file})
	}
	return corev1.Volume{Name: "settings", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: contract.CredentialsSecret, Items: items, DefaultMode: new(int32(0o444)),
	}}}
}

func buildContainer(s *scope, d Defaults) corev1.Container {
	c := corev1.Container{
		Name: "nats", Image: d.Image, ImagePullPolicy: d.ImagePullPolicy,
		Command: []string{"/nats-server"},
		Args:    []string{"--config", settingsDir + "/" + fileConf, "--name", "$(POD_NAME)"},
		Env: []corev1.EnvVar{{Name: contract.EnvPodName, ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"},
		}}},
		Ports: []corev1.ContainerPort{
			{Name: "nats", ContainerPort: bus.PortClient, Protocol: corev1.ProtocolTCP},
			{Name: "cluster", ContainerPort: bus.PortCluster, Protocol: corev1.ProtocolTCP},
			{Name: "monitor", ContainerPort: bus.PortMonitor, Protocol: corev1.ProtocolTCP},
		},
		Resources:       d.Resources,
		SecurityContext: children.SecurityContext(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: volumeName, MountPath: dataDir},
			{Name: "settings", MountPath: settingsDir, ReadOnly: true},
		},
		// A large store takes its time to be read after a crash; half an hour is a disk that is broken.
		StartupProbe: probe("js-server-only", 2, 900),
		// The cluster's state is no part of readiness: its servers could otherwise wait for each other.
		ReadinessProbe: probe("js-server-only", 2, 2),
		// JetStream turns itself off when the disk fails or is full, and comes back only with a restart.
		LivenessProbe: probe("js-enabled-only", 10, 3),
	}
	if s.replicas() > 1 {
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{"/nats-server", "--signal", "ldm=1"}},
		}}
	}
	return c
}

func probe(check string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: "/healthz?" + check + "=true", Port: intstr.FromString("monitor"), Scheme: corev1.URISchemeHTTP,
		}},
		TimeoutSeconds: 5, PeriodSeconds: period, FailureThreshold: failures,
	}
}

func limitMemory(c *corev1.Container) {
	if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
		bytes := int64(math.Floor(float64(limit.Value()) * memoryShare))
		c.Env = append(c.Env, corev1.EnvVar{Name: "GOMEMLIMIT", Value: fmt.Sprint(bytes)})
	}
}
