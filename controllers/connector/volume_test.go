package connector

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/systems"
)

// A volume may be one that a single node can have: the old pod ends before the new one begins.
func TestPodsOfFiles(t *testing.T) {
	volume := v1alpha1.FilesVolume{ClaimName: "exchange", FSGroup: new(int64(2000))}
	for _, spec := range []v1alpha1.ConnectorSpec{
		{Source: &v1alpha1.Source{Files: &v1alpha1.FilesSource{Volume: volume}}},
		{Sink: &v1alpha1.Sink{Files: &v1alpha1.FilesSink{Volume: volume, Write: v1alpha1.FilesWrite{File: &v1alpha1.FilesFile{Path: "a"}}}}},
	} {
		s := running()
		s.connector.Spec = spec
		var err error
		if s.system, err = systems.Of(s.connector); err != nil {
			t.Fatal(err)
		}
		d := buildDeployment(s, Defaults{Image: "metip"})
		if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate != nil {
			t.Errorf("strategy %+v", d.Spec.Strategy)
		}
		pod := d.Spec.Template.Spec
		claimed, mounted := false, false
		for _, v := range pod.Volumes {
			claimed = claimed || v.Name == "files" && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == "exchange"
		}
		for _, m := range pod.Containers[0].VolumeMounts {
			mounted = mounted || m.Name == "files" && m.MountPath == contract.VolumeDir && !m.ReadOnly
		}
		if !claimed || !mounted {
			t.Errorf("volumes %+v, mounts %+v", pod.Volumes, pod.Containers[0].VolumeMounts)
		}
		c := pod.SecurityContext
		if c.FSGroup == nil || *c.FSGroup != 2000 || c.FSGroupChangePolicy == nil || *c.FSGroupChangePolicy != corev1.FSGroupChangeOnRootMismatch {
			t.Errorf("security context %+v", c)
		}
	}
	s := running()
	s.connector.Spec = v1alpha1.ConnectorSpec{
		Source: &v1alpha1.Source{SFTP: &v1alpha1.SFTPSource{}}, Auth: &v1alpha1.Auth{SSH: &v1alpha1.SSHAuth{User: "u", Secret: v1alpha1.SecretName{Name: "key"}}},
	}
	d := buildDeployment(s, Defaults{})
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("one pod at a time takes in the files of a server: %+v", d.Spec.Strategy)
	}
	projected := false
	for _, source := range buildSystemFiles(&s.connector.Spec) {
		projected = projected || source.Secret != nil && source.Secret.Name == "key" && source.Secret.Items[0].Key == "ssh-privatekey" && source.Secret.Items[0].Path == contract.FileSSHKey
	}
	if !projected {
		t.Error("the private key is not mounted")
	}
	if d := buildDeployment(running(), Defaults{}); d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || d.Spec.Template.Spec.SecurityContext.FSGroup != nil {
		t.Errorf("an HTTP sink: %+v", d.Spec.Strategy)
	}
}
