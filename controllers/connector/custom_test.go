package connector

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/systems"
)

// A container of somebody else's gets the user's Secrets and nothing of the broker's, starts before the engine and ends after it.
func TestPodsWithAContainerOfTheUsersOwn(t *testing.T) {
	s := running()
	s.connector.Spec = v1alpha1.ConnectorSpec{Sink: &v1alpha1.Sink{Custom: &v1alpha1.CustomSink{CustomContainer: v1alpha1.CustomContainer{
		Image: "registry.example/own:1", Args: []string{"--quiet"}, Env: []v1alpha1.CustomEnv{{Name: "PRICE", Value: "$(POD_NAME)"}}, Ports: []int32{7000},
		Resources: &v1alpha1.CustomResources{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}},
	}}}}
	var err error
	if s.system, err = systems.Of(s.connector); err != nil {
		t.Fatal(err)
	}
	pod := buildDeployment(s, Defaults{Image: "metip"}).Spec.Template.Spec
	if len(pod.Containers) != 1 || pod.Containers[0].Name != "connector" || len(pod.InitContainers) != 1 {
		t.Fatalf("containers %+v, %+v", pod.Containers, pod.InitContainers)
	}
	own := pod.InitContainers[0]
	if own.Image != "registry.example/own:1" || own.RestartPolicy == nil || *own.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("the container is no sidecar of the image: %+v", own)
	}
	if c := own.SecurityContext; c == nil || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || !slices.Contains(c.Capabilities.Drop, "ALL") {
		t.Errorf("security context %+v", own.SecurityContext)
	}
	for _, m := range own.VolumeMounts {
		if m.MountPath != contract.SystemDir && m.MountPath != "/tmp" {
			t.Errorf("it has the mount %+v", m)
		}
	}
	env := map[string]string{}
	for _, e := range own.Env {
		env[e.Name] = e.Value
	}
	for name, want := range map[string]string{
		contract.EnvCustomRole: "Sink", contract.EnvCustomPort: "9411", contract.EnvCustomBus: "http://127.0.0.1:9410", contract.EnvCustomSecrets: contract.SystemDir,
		"PRICE": "$$(POD_NAME)", // the kubelet makes $(POD_NAME) of it again
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if own.Resources.Limits.Memory().String() != "64Mi" || !slices.Equal(s.system.Ports, []int32{7000}) {
		t.Errorf("resources %+v, ports %v", own.Resources, s.system.Ports)
	}
}
