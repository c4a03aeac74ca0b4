package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	metipwebhook "github.com/metip/metip/controllers/webhook"
)

// resources is a flag value: requests.cpu=10m,limits.memory=256Mi.
type resources struct{ corev1.ResourceRequirements }

func (r *resources) String() string { return "" }

// Set parses the whole list.
func (r *resources) Set(text string) error {
	out := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, pair := range split(text) {
		name, value, ok := strings.Cut(pair, "=")
		kind, of, ok2 := strings.Cut(name, ".")
		if !ok || !ok2 {
			return fmt.Errorf("%q is not like requests.cpu=10m", pair)
		}
		q, err := resource.ParseQuantity(value)
		if err != nil {
			return fmt.Errorf("%q: %w", pair, err)
		}
		switch kind {
		case "requests":
			out.Requests[corev1.ResourceName(of)] = q
		case "limits":
			out.Limits[corev1.ResourceName(of)] = q
		default:
			return fmt.Errorf("%q begins neither with requests. nor with limits.", pair)
		}
	}
	r.ResourceRequirements = out
	return nil
}

// env is a flag value that may be given several times: NAME=value.
type env []corev1.EnvVar

func (e *env) String() string { return "" }

// Set adds one variable.
func (e *env) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not NAME=value", text)
	}
	*e = append(*e, corev1.EnvVar{Name: name, Value: value})
	return nil
}

// serving is TLS with our own certificate; without webhooks there is none, and controller-runtime signs one for itself.
func serving(f flags, certificate *metipwebhook.Rotator) []func(*tls.Config) {
	if !f.webhooks {
		return nil
	}
	return []func(*tls.Config){certificate.Configure}
}

// containerName is the operator's container in config/manager.
const containerName = "manager"

// ownImage is the image of the operator's own pod, whose name is in POD_NAME.
func ownImage(ctx context.Context, c client.Reader, namespace string) (string, error) {
	name := os.Getenv("POD_NAME")
	if name == "" {
		return "", errors.New("--image must be set where POD_NAME is not")
	}
	pod := &corev1.Pod{}
	if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, pod); err != nil {
		return "", fmt.Errorf("reading the operator's own pod for its image: %w", err)
	}
	for _, container := range pod.Spec.Containers {
		if container.Name == containerName {
			return container.Image, nil
		}
	}
	return "", fmt.Errorf("pod %s/%s has no container %s: set --image", namespace, name, containerName)
}
