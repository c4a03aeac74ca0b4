package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ManagerDeployment is the operator's, in OperatorNamespace.
const ManagerDeployment = "metip-manager"

// Pauses and limits of waiting.
const (
	pollEvery = 250 * time.Millisecond
	waitLimit = 3 * time.Minute
)

// Install the operator from config/default, as README.md says, and wait until it runs. An operator that runs another build of the same
// image tag is restarted.
func (c *Cluster) Install(ctx context.Context) error {
	dir, cleanup, err := c.kustomization()
	if err != nil {
		return err
	}
	defer cleanup()
	if _, err := c.Run(ctx, "apply", "--server-side", "--force-conflicts", "-k", dir); err != nil {
		return err
	}
	if err := c.stampManager(ctx); err != nil {
		return err
	}
	return c.WaitDeployment(ctx, OperatorNamespace, ManagerDeployment)
}

// Uninstall what Install applied, the kinds and all objects of these kinds included.
func (c *Cluster) Uninstall(ctx context.Context) error {
	dir, cleanup, err := c.kustomization()
	if err != nil {
		return err
	}
	defer cleanup()
	_, err = c.Run(ctx, "delete", "--ignore-not-found", "--wait=true", "--timeout=2m", "-k", dir)
	return err
}

// kustomization is config/default or, for another image, an overlay of it.
func (c *Cluster) kustomization() (dir string, cleanup func(), err error) {
	base := filepath.Join(c.Root, "config", "default")
	if c.Image == defaultImage {
		return base, func() {}, nil
	}
	// kustomize takes no absolute paths, hence below the root
	if err := os.MkdirAll(filepath.Join(c.Root, "out"), 0o755); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(filepath.Join(c.Root, "out"), "install-"); err != nil {
		return "", nil, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	name, tag := splitImage(c.Image)
	overlay := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../config/default]
images: [{name: localhost/metip, newName: %q, %s}]
`, name, tag)
	return dir, cleanup, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o644)
}

// splitImage gives the name, and the tag or digest as kustomize writes it.
func splitImage(image string) (name, version string) {
	if name, digest, ok := strings.Cut(image, "@"); ok {
		return name, fmt.Sprintf("digest: %q", digest)
	}
	// a colon before a slash is a port's
	if at := strings.LastIndexByte(image, ':'); at > strings.LastIndexByte(image, '/') {
		return image[:at], fmt.Sprintf("newTag: %q", image[at+1:])
	}
	return image, `newTag: "latest"`
}

// stampManager puts the digest of the image's tar on the operator's pods: the local images have the same tag always.
func (c *Cluster) stampManager(ctx context.Context) error {
	if !c.Local {
		return nil
	}
	digest, err := fileDigest(filepath.Join(c.Root, "out", "images", "metip.tar"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: OperatorNamespace, Name: ManagerDeployment}}
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"metip.dev/image-digest":%q}}}}}`, digest)
	return c.Client.Patch(ctx, deployment, client.RawPatch("application/merge-patch+json", []byte(patch)))
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// WaitDeployment until every pod is of the present template and ready. The error says what the pods wait for.
func (c *Cluster) WaitDeployment(ctx context.Context, namespace, name string) error {
	deployment := &appsv1.Deployment{}
	err := wait.PollUntilContextTimeout(ctx, pollEvery, waitLimit, true, func(ctx context.Context) (bool, error) {
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, deployment); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		want := int32(1)
		if deployment.Spec.Replicas != nil {
			want = *deployment.Spec.Replicas
		}
		s := deployment.Status
		return s.ObservedGeneration >= deployment.Generation && s.UpdatedReplicas == want && s.ReadyReplicas == want && s.Replicas == want, nil
	})
	if err != nil {
		return fmt.Errorf("deployment %s/%s is not ready: %w: %s", namespace, name, err, c.explainPods(context.WithoutCancel(ctx), namespace))
	}
	return nil
}

func (c *Cluster) explainPods(ctx context.Context, namespace string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pods := &corev1.PodList{}
	if err := c.Client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
		return err.Error()
	}
	text := ""
	for _, pod := range pods.Items {
		text += fmt.Sprintf("\n  pod %s: %s", pod.Name, pod.Status.Phase)
		for _, s := range pod.Status.ContainerStatuses {
			switch {
			case s.State.Waiting != nil:
				text += fmt.Sprintf(", %s waits: %s %s", s.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
			case s.State.Terminated != nil:
				text += fmt.Sprintf(", %s ended: %s %d", s.Name, s.State.Terminated.Reason, s.State.Terminated.ExitCode)
			}
		}
	}
	return text
}

// DeleteNamespace and wait until it is gone.
func (c *Cluster) DeleteNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := client.IgnoreNotFound(c.Client.Delete(ctx, namespace)); err != nil {
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, pollEvery, waitLimit, true, func(ctx context.Context) (bool, error) {
		there, err := c.Exists(ctx, namespace)
		return !there && err == nil, err
	})
	if err != nil {
		return fmt.Errorf("namespace %s does not go away: %w: %v", name, err, namespace.Status.Conditions)
	}
	return nil
}

// PodUID of a pod.
func (c *Cluster) PodUID(ctx context.Context, namespace, name string) (types.UID, error) {
	pod, err := c.Clientset.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	return pod.GetUID(), err
}

// ReadyPodUID of a pod, empty while it is not there or not ready.
func (c *Cluster) ReadyPodUID(ctx context.Context, namespace, name string) (types.UID, error) {
	pod, err := c.Clientset.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil || !podReady(pod) {
		return "", client.IgnoreNotFound(err)
	}
	return pod.UID, nil
}
