package e2e_test

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/site"
)

// maxIdleMemory of a connector pod's own, in MiB. What its program's file has in memory comes on top and depends on the machine: it is measured,
// and not bounded.
const maxIdleMemory = 12

var _ = Describe("The pods", func() {
	It("of connectors are small and ready at once", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		for _, connector := range []string{site.Custody, site.CourtDB, site.CaseAPI} {
			pods := f.pods(ctx, connector)
			Expect(pods).To(HaveLen(1))
			processes, err := on.Processes(ctx, f.Namespace, pods[0])
			Expect(err).NotTo(HaveOccurred())
			Expect(processes).To(HaveLen(1), "%v", processes)
			weigh(processes[0], connector)
			took := f.startTime(ctx, connector, pods[0])
			measured.add("container start until Ready, "+connector, took.Seconds(), "s")
		}
	}, SpecTimeout(4*time.Minute))

	It("run as any user, under restricted Pod Security", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{broker: ownBroker(ctx, 1)})
		for _, original := range []struct{ namespace, pod string }{
			{f.Namespace, f.pods(ctx, site.Custody)[0]},
			{f.Namespace, f.pods(ctx, site.CourtDB)[0]},
			{f.broker.Namespace, podNames(ctx, f.broker.Namespace, brokerSelector(f.broker))[0]},
			{cluster.OperatorNamespace, podNames(ctx, cluster.OperatorNamespace, operatorSelector)[0]},
		} {
			namespace, err := on.Clientset.CoreV1().Namespaces().Get(ctx, original.namespace, metav1.GetOptions{})
			Expect(err).NotTo(HaveOccurred())
			Expect(namespace.Labels).To(HaveKeyWithValue("pod-security.kubernetes.io/enforce", "restricted"), original.namespace)
			f.runsAsAnyUser(ctx, original.namespace, original.pod)
		}
	}, SpecTimeout(5*time.Minute))

	It("cannot read what is not theirs: the operator no user's Secret, a connector nothing of Kubernetes", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		manager := "system:serviceaccount:" + cluster.OperatorNamespace + ":" + operatorServiceAccount(ctx)
		for _, verb := range []string{"get", "list", "watch", "patch", "update", "delete"} {
			answer, _ := on.Run(ctx, "auth", "can-i", verb, "secrets/"+site.CustodySecret, "-n", f.Namespace, "--as="+manager)
			Expect(strings.TrimSpace(answer)).To(Equal("no"), "%s of a user's Secret", verb)
		}
		answer, err := on.Run(ctx, "auth", "can-i", "patch", "secrets/metip-credentials", "-n", f.Namespace, "--as="+manager)
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.TrimSpace(answer)).To(Equal("yes"), "the one Secret that is the operator's")
		for _, connector := range []string{site.Custody, site.CourtDB} {
			pod, err := on.Clientset.CoreV1().Pods(f.Namespace).Get(ctx, f.pods(ctx, connector)[0], metav1.GetOptions{})
			Expect(err).NotTo(HaveOccurred())
			Expect(pod.Spec.AutomountServiceAccountToken).To(HaveValue(BeFalse()))
			text, err := json.Marshal(pod.Spec)
			Expect(err).NotTo(HaveOccurred())
			Expect(string(text)).NotTo(ContainSubstring("serviceAccountToken"))
		}
	}, SpecTimeout(4*time.Minute))
})

func operatorServiceAccount(ctx context.Context) string {
	GinkgoHelper()
	deployment := managerDeployment()
	exists, err := on.Exists(ctx, deployment)
	Expect(err).NotTo(HaveOccurred())
	Expect(exists).To(BeTrue())
	return deployment.Spec.Template.Spec.ServiceAccountName
}

// startTime deletes a Connector's pod and measures its successor, from the start of the process until the pod is Ready.
func (f *testFlow) startTime(ctx context.Context, connector, pod string) time.Duration {
	GinkgoHelper()
	w, err := on.Clientset.CoreV1().Pods(f.Namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector: "bus.metip.dev/connector=" + connector, FieldSelector: fields.OneTermNotEqualSelector("metadata.name", pod).String(),
	})
	Expect(err).NotTo(HaveOccurred())
	defer w.Stop()
	_, err = on.Run(ctx, "delete", "pod", "-n", f.Namespace, pod, "--wait=false")
	Expect(err).NotTo(HaveOccurred())
	for {
		var event watch.Event
		Eventually(ctx, w.ResultChan()).WithTimeout(time.Minute).Should(Receive(&event))
		successor, ok := event.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		for _, condition := range successor.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				ready := time.Now()
				processes, err := on.Processes(ctx, f.Namespace, successor.Name)
				Expect(err).NotTo(HaveOccurred())
				Expect(processes).To(HaveLen(1))
				started, err := processes[0].Started()
				Expect(err).NotTo(HaveOccurred())
				return ready.Sub(started)
			}
		}
	}
}

// runsAsAnyUser starts a copy of a pod as OpenShift's restricted-v2 would: a user out of the namespace's range, group 0.
func (f *testFlow) runsAsAnyUser(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	const user = int64(1_000_730_000)
	pod, err := on.Clientset.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	Expect(pod.Spec.SecurityContext.RunAsUser).To(BeNil(), "%s must leave the user open", name)
	copied := &corev1.Pod{
		// no labels: no Service finds the copy, and no controller takes it
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "any-user-" + name[:min(len(name), 50)]},
		Spec:       *pod.Spec.DeepCopy(),
	}
	copied.Spec.NodeName = ""
	u, g := user, user
	copied.Spec.SecurityContext.RunAsUser, copied.Spec.SecurityContext.FSGroup = &u, &g
	for i := range copied.Spec.Containers {
		if s := copied.Spec.Containers[i].SecurityContext; s != nil {
			Expect(s.RunAsUser).To(BeNil(), "%s must leave the user open", name)
		}
	}
	for i := range copied.Spec.Volumes {
		if copied.Spec.Volumes[i].PersistentVolumeClaim != nil {
			copied.Spec.Volumes[i].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		}
	}
	_, err = on.Clientset.CoreV1().Pods(namespace).Create(ctx, copied, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		_, err := on.Run(ctx, "delete", "pod", "-n", namespace, copied.Name, "--ignore-not-found", "--grace-period=1")
		Expect(err).NotTo(HaveOccurred())
	}, NodeTimeout(time.Minute))
	_, err = on.Run(ctx, "wait", "-n", namespace, "--for=condition=Ready", "pod/"+copied.Name, "--timeout=60s")
	if err != nil {
		logs, _ := on.Run(ctx, "logs", "-n", namespace, copied.Name, "--all-containers")
		Fail(err.Error() + "\n" + logs)
	}
}

// weigh the process of a connector that has nothing to do.
func weigh(p cluster.Process, connector string) {
	GinkgoHelper()
	all, own, err := p.ResidentBytes()
	Expect(err).NotTo(HaveOccurred())
	measured.add("idle RSS of "+connector, float64(all)/(1<<20), "MiB")
	measured.add("idle RSS of "+connector+", its own", float64(own)/(1<<20), "MiB")
	Expect(float64(own)/(1<<20)).To(BeNumerically("<=", maxIdleMemory), "memory of %s, idle", connector)
}
