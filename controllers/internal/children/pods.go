package children

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
)

// PodSecurityContext is what the restricted Pod Security Standard asks for. It names no user id: the image's own is numeric, and
// OpenShift chooses another.
func PodSecurityContext() *corev1.PodSecurityContext {
	return &corev1.PodSecurityContext{
		RunAsNonRoot:   new(true),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// SecurityContext of every container.
func SecurityContext() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// Customize applies the user's template to a pod whose first container is the one that template.resources is for. The labels and annotations
// that the pod has already win.
func Customize(pod *corev1.PodTemplateSpec, t *v1alpha1.PodTemplate) {
	selector := maps.Clone(pod.Labels)
	if t != nil {
		pod.Labels = merged(t.Labels, pod.Labels)
		pod.Annotations = merged(t.Annotations, pod.Annotations)
		if t.Resources != nil {
			pod.Spec.Containers[0].Resources = *t.Resources.DeepCopy()
		}
		pod.Spec.NodeSelector = t.NodeSelector
		pod.Spec.Tolerations = t.Tolerations
		pod.Spec.TopologySpreadConstraints = t.TopologySpreadConstraints
		pod.Spec.PriorityClassName = t.PriorityClassName
		pod.Spec.HostAliases = t.HostAliases
		for _, s := range t.ImagePullSecrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s.Name})
		}
	}
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		pod.Spec.TopologySpreadConstraints = spread(selector)
	}
}

// spread pods over nodes and zones where they can.
func spread(labels map[string]string) []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
		out = append(out, corev1.TopologySpreadConstraint{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: labels},
		})
	}
	return out
}

func merged(user, operator map[string]string) map[string]string {
	if len(user) == 0 {
		return operator
	}
	out := maps.Clone(user)
	maps.Copy(out, operator)
	return out
}

// ForbiddenAnnotations are those of a template that the operator's list does not allow, sorted. An entry that ends in `/` allows all
// annotations under it.
func ForbiddenAnnotations(t *v1alpha1.PodTemplate, allowed []string) []string {
	if t == nil {
		return nil
	}
	var out []string
	for name := range t.Annotations {
		if !slices.ContainsFunc(allowed, func(a string) bool {
			return a == name || len(a) > 0 && a[len(a)-1] == '/' && len(name) > len(a) && name[:len(a)] == a
		}) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
