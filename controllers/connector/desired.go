package connector

import (
	"path"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/children"
	"github.com/metip/metip/controllers/internal/compile"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/systems"
)

// Defaults of connector pods, from the operator's flags.
type Defaults struct {
	// Image of the pods, which holds /connector.
	Image           string
	ImagePullPolicy corev1.PullPolicy
	// Resources of pods whose template has none.
	Resources corev1.ResourceRequirements
	// Env is added to every pod: proxies, say.
	Env []corev1.EnvVar
}

// DefaultResources of a connector pod.
func DefaultResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
	}
}

const (
	// minGracePeriod in which a pod drains; a delivery, or a call, may take its whole timeout.
	minGracePeriod = 30 * time.Second
	drainMargin    = 15 * time.Second
	// endpointDelay is how long a listener goes on while load balancers learn that the pod leaves.
	endpointDelay = 3
	// customName of the user's own container.
	customName = "custom"
	// fileMode of everything that is mounted: the user id is arbitrary.
	fileMode = int32(0o444)
)

func (s *scope) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: s.connector.Namespace, Name: name,
		Labels: labels(s.connector.Name, string(s.connector.Spec.IntegrationRef.Name)),
	}
}

// buildServiceAccount is an account without rights or token: pods have one of their own so that nobody grants anything to all of them.
func buildServiceAccount(s *scope) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta:                   s.meta(metadata.ConnectorName(s.connector.Name)),
		AutomountServiceAccountToken: new(false),
	}
}

// buildConfigMap holds the configuration. It is immutable and named after its hash: a crashed pod of the old
// configuration must not start with the new one.
func buildConfigMap(s *scope) (*corev1.ConfigMap, error) {
	m := &corev1.ConfigMap{
		ObjectMeta: s.meta(metadata.ConfigName(s.connector.Name, s.config.Hash)),
		Immutable:  new(true),
		Data:       map[string]string{path.Base(contract.ConfigFile): string(s.configJSON)},
	}
	m.Labels[metadata.LabelConfig] = s.config.Hash
	digests, err := routeDigests(s)
	if err != nil {
		return nil, err
	}
	if digests != "" {
		m.Annotations = map[string]string{metadata.AnnotationRoutes: digests}
	}
	return m, nil
}

// routeDigests say which Routes a configuration holds; empty where it can hold none.
func routeDigests(s *scope) (string, error) {
	switch {
	case s.config.Sink != nil:
		return compile.RouteDigests(s.config.Sink.Routes)
	case systems.Answers(s.connector):
		return compile.CallDigests(s.config.Source.Calls)
	default:
		return "", nil
	}
}

// buildService is how the listener is reached: the Connector's name, port 80, or 443 with tls.
func buildService(s *scope) *corev1.Service {
	port := corev1.ServicePort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(contract.PortListener)}
	if s.connector.Spec.TLS != nil {
		port.Name, port.Port = "https", 443
	}
	return &corev1.Service{
		ObjectMeta: s.meta(s.connector.Name),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: selector(s.connector.Name), Ports: []corev1.ServicePort{port},
		},
	}
}

// buildDeployment runs the pods. replicas stays the autoscaler's while the Connector does not say.
func buildDeployment(s *scope, d Defaults) *appsv1.Deployment {
	pod := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels(s.connector.Name, string(s.connector.Spec.IntegrationRef.Name))},
		Spec: corev1.PodSpec{
			ServiceAccountName:            metadata.ConnectorName(s.connector.Name),
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			SecurityContext:               children.PodSecurityContext(),
			TerminationGracePeriodSeconds: new(int64(gracePeriod(s.config).Seconds())),
			Containers:                    []corev1.Container{buildContainer(s, d)},
			Volumes:                       buildVolumes(s),
		},
	}
	pod.Labels[metadata.LabelConfig] = s.config.Hash
	children.Customize(&pod, s.connector.Spec.Template)
	limitMemory(&pod.Spec.Containers[0])
	if own := systems.Container(s.connector); own != nil {
		addContainer(&pod.Spec, own, s.system.Role)
	}
	strategy := appsv1.DeploymentStrategy{
		Type: appsv1.RollingUpdateDeploymentStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDeployment{
			MaxSurge: new(intstr.FromInt32(1)), MaxUnavailable: new(intstr.FromInt32(0)),
		},
	}
	v := systems.Volume(s.connector)
	if v != nil {
		mountVolume(&pod.Spec, v)
	}
	if v != nil || systems.Alone(s.connector) {
		// One pod at a time works on the volume, which may not be had by two nodes, on the folder, or asks the system.
		strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	// Pods of two configurations count apart, so that a roll spreads the new ones.
	return &appsv1.Deployment{
		ObjectMeta: s.meta(metadata.ConnectorName(s.connector.Name)),
		Spec: appsv1.DeploymentSpec{
			Replicas:                s.connector.Spec.Replicas,
			Selector:                &metav1.LabelSelector{MatchLabels: selector(s.connector.Name)},
			MinReadySeconds:         1,
			RevisionHistoryLimit:    new(int32(2)),
			ProgressDeadlineSeconds: new(int32(120)),
			Strategy:                strategy,
			Template:                pod,
		},
	}
}

// mountVolume of the user's. The restricted Pod Security Standard allows claims, and any group but root's.
func mountVolume(pod *corev1.PodSpec, v *v1alpha1.FilesVolume) {
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "files", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: v.ClaimName},
	}})
	pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "files", MountPath: contract.VolumeDir})
	if v.FSGroup != nil {
		pod.SecurityContext.FSGroup = v.FSGroup
		// Not every file of a large volume, each time that a pod starts.
		pod.SecurityContext.FSGroupChangePolicy = new(corev1.FSGroupChangeOnRootMismatch)
	}
}

// addContainer of the user's own. As a sidecar it starts before the engine and ends after it, so that what is under way comes to its end. It gets the
// user's Secrets, and nothing of the broker's.
func addContainer(pod *corev1.PodSpec, own *v1alpha1.CustomContainer, role string) {
	c := corev1.Container{
		Name: customName, Image: own.Image, Command: own.Command, Args: own.Args, RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		Env: []corev1.EnvVar{
			{Name: contract.EnvCustomRole, Value: role},
			{Name: contract.EnvCustomPort, Value: strconv.Itoa(contract.PortCustomContainer)},
			{Name: contract.EnvCustomBus, Value: "http://127.0.0.1:" + strconv.Itoa(contract.PortCustomBus)},
			{Name: contract.EnvCustomSecrets, Value: contract.SystemDir},
		},
		Resources:       DefaultResources(),
		SecurityContext: children.SecurityContext(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "system", MountPath: contract.SystemDir, ReadOnly: true},
			{Name: "tmp", MountPath: "/tmp"},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	for _, e := range own.Env {
		c.Env = append(c.Env, corev1.EnvVar{Name: e.Name, Value: strings.ReplaceAll(e.Value, "$(", "$$(")}) // as it is
	}
	if own.Resources != nil {
		c.Resources = corev1.ResourceRequirements{Requests: own.Resources.Requests.DeepCopy(), Limits: own.Resources.Limits.DeepCopy()}
	}
	pod.InitContainers = append(pod.InitContainers, c)
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
}

func buildContainer(s *scope, d Defaults) corev1.Container {
	c := corev1.Container{
		Name: "connector", Image: d.Image, ImagePullPolicy: d.ImagePullPolicy, Command: []string{"/connector"},
		Env: append([]corev1.EnvVar{{
			Name:      contract.EnvPodName,
			ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}},
		}}, d.Env...),
		Ports:           []corev1.ContainerPort{{Name: "health", ContainerPort: contract.PortHealth, Protocol: corev1.ProtocolTCP}},
		Resources:       *d.Resources.DeepCopy(),
		SecurityContext: children.SecurityContext(),
		StartupProbe:    probe("/readyz", 1, 120),
		ReadinessProbe:  probe("/readyz", 5, 2),
		LivenessProbe:   probe("/healthz", 10, 6),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "config", MountPath: path.Dir(contract.ConfigFile), ReadOnly: true},
			{Name: "broker", MountPath: path.Dir(contract.BrokerCredsFile), ReadOnly: true},
			{Name: "system", MountPath: contract.SystemDir, ReadOnly: true},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	if s.system.Listens {
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: "listener", ContainerPort: contract.PortListener, Protocol: corev1.ProtocolTCP})
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: endpointDelay}}}
	}
	return c
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(contract.PortHealth), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 5,
	}
}

// limitMemory tells the Go runtime of 85 % of the memory limit, so that it collects before the kernel kills: the program's own pages count
// towards the container's limit and not towards Go's.
func limitMemory(c *corev1.Container) {
	if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
		c.Env = append(c.Env, corev1.EnvVar{Name: "GOMEMLIMIT", Value: strconv.FormatInt(limit.Value()/20*17, 10)})
	}
}

func gracePeriod(c contract.Config) time.Duration {
	grace := minGracePeriod
	if c.Sink != nil {
		for _, r := range c.Sink.Routes {
			grace = max(grace, time.Duration(r.Delivery.Timeout)+drainMargin)
		}
	}
	if c.Source != nil {
		for _, call := range c.Source.Calls {
			grace = max(grace, time.Duration(call.Timeout)+drainMargin)
		}
	}
	if c.Service != nil {
		grace = max(grace, time.Duration(c.Service.Timeout)+drainMargin)
	}
	return grace
}

// buildVolumes mounts the configuration, the pod's own key of the credentials, and the user's Secrets: optional, so that
// the pod can say what is missing, and never by subPath, which would not follow changes.
func buildVolumes(s *scope) []corev1.Volume {
	return []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: metadata.ConfigName(s.connector.Name, s.config.Hash)},
			DefaultMode:          new(fileMode),
		}}},
		{Name: "broker", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName:  contract.CredentialsSecret,
			Items:       []corev1.KeyToPath{{Key: credentials.Key(s.connector.Name), Path: path.Base(contract.BrokerCredsFile)}},
			DefaultMode: new(fileMode),
		}}},
		{Name: "system", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: buildSystemFiles(&s.connector.Spec), DefaultMode: new(fileMode),
		}}},
	}
}

func buildSystemFiles(spec *v1alpha1.ConnectorSpec) []corev1.VolumeProjection {
	var out []corev1.VolumeProjection
	if a := spec.Auth; a != nil {
		switch {
		case a.Basic != nil:
			out = append(out, fromSecret(a.Basic.Secret.Name, "username", contract.FileUsername, "password", contract.FilePassword))
		case a.Bearer != nil:
			out = append(out, fromSecret(a.Bearer.Token.Name, a.Bearer.Token.Key, contract.FileToken))
		case a.HMAC != nil:
			out = append(out, fromSecret(a.HMAC.Key.Name, a.HMAC.Key.Key, contract.FileHMACKey))
		case a.SSH != nil:
			out = append(out, fromSecret(a.SSH.Secret.Name, corev1.SSHAuthPrivateKey, contract.FileSSHKey))
		}
	}
	if t := spec.TLS; t != nil {
		if t.CA != nil && t.CA.Secret != nil {
			out = append(out, fromSecret(t.CA.Secret.Name, t.CA.Secret.Key, contract.FileCA))
		}
		if t.CA != nil && t.CA.ConfigMap != nil {
			out = append(out, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: t.CA.ConfigMap.Name}, Optional: new(true),
				Items: []corev1.KeyToPath{{Key: t.CA.ConfigMap.Key, Path: contract.FileCA}},
			}})
		}
		if t.Certificate != nil {
			out = append(out, fromSecret(t.Certificate.Name, "tls.crt", contract.FileTLSCert, "tls.key", contract.FileTLSKey))
		}
	}
	return out
}

// fromSecret projects keys to paths, given in pairs.
func fromSecret(name string, keyPath ...string) corev1.VolumeProjection {
	p := &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: new(true)}
	for i := 0; i < len(keyPath); i += 2 {
		p.Items = append(p.Items, corev1.KeyToPath{Key: keyPath[i], Path: keyPath[i+1]})
	}
	return corev1.VolumeProjection{Secret: p}
}
