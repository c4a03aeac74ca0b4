package api_test

import (
	"io"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/metip/metip/api/v1alpha1"
)

var _ = Describe("Server-side apply", func() {
	It("lets two managers own destinations of one Route", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		applyAs := func(manager, to string) error {
			object := parseYAML(`{apiVersion: bus.metip.dev/v1alpha1, kind: Route, metadata: {name: shared}, spec: {from: [{connector: a}], to: [` + to + `]}}`)
			object.SetNamespace(namespace)
			return api.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(manager))
		}
		Expect(applyAs("custody-team", "{name: db, connector: b}")).To(Succeed())
		Expect(applyAs("court-team", "{name: api, connector: c}")).To(Succeed())

		destinations := func() (names []string) {
			flow := &v1alpha1.Route{}
			Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shared"}, flow)).To(Succeed())
			for _, to := range flow.Spec.To {
				names = append(names, string(to.Name)+"="+string(to.Connector))
			}
			return names
		}
		Expect(destinations()).To(Equal([]string{"db=b", "api=c"}))

		Expect(applyAs("court-team", "{name: api, connector: d}")).To(Succeed())
		Expect(destinations()).To(Equal([]string{"db=b", "api=d"}), "each changes its own alone")
		Expect(applyAs("court-team", "{name: db, connector: mine}")).To(MatchError(ContainSubstring("conflict")))
	})
})

var _ = Describe("The scale subresource", func() {
	It("works on a Connector that says nothing of replicas, and Git does not revert it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		applyFromGit := func() {
			GinkgoHelper()
			object := parseYAML(`{apiVersion: bus.metip.dev/v1alpha1, kind: Connector, metadata: {name: web}, spec: {source: {http: {}}, auth: {anonymous: {}}}}`)
			object.SetNamespace(namespace)
			Expect(api.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("git"))).To(Succeed())
		}
		applyFromGit()
		connector := &v1alpha1.Connector{}
		Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "web"}, connector)).To(Succeed())
		connector.Status.Replicas = 1
		connector.Status.Selector = "bus.metip.dev/connector=web"
		Expect(api.Status().Update(ctx, connector)).To(Succeed())

		scale := &autoscalingv1.Scale{}
		Expect(api.SubResource("scale").Get(ctx, connector, scale)).To(Succeed())
		Expect(scale.Spec.Replicas).To(BeEquivalentTo(1))
		Expect(scale.Status).To(Equal(autoscalingv1.ScaleStatus{Replicas: 1, Selector: "bus.metip.dev/connector=web"}))

		kubectl("scale", "connector/web", "--replicas=3", "-n", namespace)
		applyFromGit()
		Expect(api.Get(ctx, client.ObjectKeyFromObject(connector), connector)).To(Succeed())
		Expect(connector.Spec.Replicas).To(HaveValue(BeEquivalentTo(3)))
	})
})

var _ = Describe("Ratcheting", func() {
	// A stricter rule in a later release must not stop changes to objects that were accepted by an earlier one. It is tried on a copy of
	// the Integration kind in a group of its own.
	It("lets an object that breaks a newer rule change elsewhere", func(ctx SpecContext) {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		Expect(yaml.Unmarshal(readFile(filepath.Join(root, "config/crd/bases/bus.metip.dev_integrations.yaml")), crd)).To(Succeed())
		crd.Spec.Group = "ratchet.metip.dev"
		crd.Name = "integrations.ratchet.metip.dev"
		install := func() {
			GinkgoHelper()
			_, err := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{crd.DeepCopy()}})
			Expect(err).NotTo(HaveOccurred())
		}
		install()

		old := parseYAML(`{apiVersion: ratchet.metip.dev/v1alpha1, kind: Integration, metadata: {name: old}, spec: {owner: {team: Custody, contact: "+44 20 7946 0000"}}}`)
		old.SetNamespace(newNamespace(ctx))
		Eventually(api.Create).WithArguments(ctx, old).Should(Succeed())

		spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		owner := spec.Properties["owner"]
		contact := owner.Properties["contact"]
		contact.MaxLength = ptr.To[int64](4)
		owner.Properties["contact"] = contact
		spec.Properties["owner"] = owner
		install()
		// The new schema is served a moment later.
		fresh := parseYAML(`{apiVersion: ratchet.metip.dev/v1alpha1, kind: Integration, metadata: {name: fresh}, spec: {owner: {team: Court, contact: "12345"}}}`)
		fresh.SetNamespace(old.GetNamespace())
		Eventually(func() error { return api.Create(ctx, fresh, client.DryRunAll) }).Should(MatchError(ContainSubstring("Too long")))

		Expect(unstructured.SetNestedField(old.Object, true, "spec", "suspend")).To(Succeed())
		Expect(api.Update(ctx, old)).To(Succeed(), "the rule does not bind what is not touched")
		Expect(unstructured.SetNestedField(old.Object, "still too long", "spec", "owner", "contact")).To(Succeed())
		Expect(api.Update(ctx, old)).To(MatchError(ContainSubstring("Too long")))
	})
})

var _ = Describe("kubectl", func() {
	It("prints the columns that people on call look for", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		broker := managedBroker(namespace, "default")
		Expect(api.Create(ctx, broker)).To(Succeed())
		broker.Status.Servers = "3/3"
		Expect(api.Status().Update(ctx, broker)).To(Succeed())
		area := integration(namespace, "default")
		area.Spec.Owner = &v1alpha1.Owner{Team: "Custody"}
		Expect(api.Create(ctx, area)).To(Succeed())
		Expect(api.Create(ctx, listener(namespace, "web"))).To(Succeed())
		flow := route(namespace, "flow")
		Expect(api.Create(ctx, flow)).To(Succeed())
		flow.Status.From, flow.Status.To = "a", "b,c"
		Expect(api.Status().Update(ctx, flow)).To(Succeed())

		for kind, rows := range map[string][]string{
			"brk":    {"NAME READY REASON SERVERS DURABILITY AGE", "default Unknown Pending 3/3 Fsync"},
			"intg":   {"NAME READY REASON OWNER CONNECTORS AGE", "default Unknown Pending Custody"},
			"conn":   {"NAME ROLE TYPE READY REASON ENDPOINT ROUTES AGE", "web Unknown Pending"},
			"routes": {"NAME READY REASON FROM TO AGE", "flow Unknown Pending a b,c"},
		} {
			printed := kubectl("get", kind, "-n", namespace)
			for i, row := range rows {
				Expect(printed[i]).To(HavePrefix(row), kind)
			}
		}
		Expect(kubectl("get", "routes", "-n", namespace, "-o", "wide")[0]).To(Equal("NAME READY REASON FROM TO AGE SUSPENDED MESSAGE"))
		Expect(kubectl("get", "conn", "-n", namespace, "-o", "wide")[0]).To(HaveSuffix("AGE INTEGRATION REPLICAS MESSAGE"))
		Expect(kubectl("get", "brk", "-n", namespace, "-o", "wide")[0]).To(HaveSuffix("AGE VERSION MESSAGE"))
		Expect(kubectl("get", "intg", "-n", namespace, "-o", "wide")[0]).To(HaveSuffix("AGE BROKER RETENTION MESSAGE"))

		all := strings.Join(kubectl("get", "metip", "-n", namespace, "-o", "name"), "\n")
		Expect(all).To(And(ContainSubstring("broker.bus"), ContainSubstring("integration.bus"), ContainSubstring("connector.bus"), ContainSubstring("route.bus")))
	})

	It("explains every field", func() {
		for _, path := range []string{"broker.spec.managed", "integration.spec.retention", "connector.spec.source.http", "route.spec.to.operation"} {
			Expect(strings.Join(kubectl("explain", path), "\n")).NotTo(ContainSubstring("<no description>"), path)
		}
		for _, crd := range installedCRDs() {
			for _, version := range crd.Spec.Versions {
				for name, property := range version.Schema.OpenAPIV3Schema.Properties {
					Expect(undescribed(name, property)).To(BeEmpty(), crd.Name)
				}
			}
		}
	})
})

// undescribed lists the fields below path that `kubectl explain` would print without a word.
func undescribed(path string, schema apiextensionsv1.JSONSchemaProps) []string {
	var missing []string
	if schema.Description == "" && path != "metadata" {
		missing = append(missing, path)
	}
	for name, property := range schema.Properties {
		missing = append(missing, undescribed(path+"."+name, property)...)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		for name, property := range schema.Items.Schema.Properties {
			missing = append(missing, undescribed(path+"[]."+name, property)...)
		}
	}
	return missing
}

func installedCRDs() []*apiextensionsv1.CustomResourceDefinition {
	GinkgoHelper()
	paths, err := filepath.Glob(filepath.Join(root, "config/crd/bases/*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	Expect(paths).To(HaveLen(5))
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, path := range paths {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		Expect(yaml.Unmarshal(readFile(path), crd)).To(Succeed())
		crds = append(crds, crd)
	}
	return crds
}

// kubectl runs it against the test's API server and returns the lines that it prints, with single spaces between the words.
func kubectl(args ...string) []string {
	GinkgoHelper()
	user, err := env.AddUser(envtest.User{Name: "on-call", Groups: []string{"system:masters"}}, nil)
	Expect(err).NotTo(HaveOccurred())
	control, err := user.Kubectl()
	Expect(err).NotTo(HaveOccurred())
	control.Opts = append(control.Opts, "--cache-dir="+GinkgoT().TempDir())
	stdout, stderr, err := control.Run(args...)
	complaint, readErr := io.ReadAll(stderr)
	Expect(readErr).NotTo(HaveOccurred())
	Expect(err).NotTo(HaveOccurred(), "kubectl %v: %s", args, complaint)
	text, err := io.ReadAll(stdout)
	Expect(err).NotTo(HaveOccurred())
	var lines []string
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return lines
}

func parseYAML(text string) *unstructured.Unstructured {
	GinkgoHelper()
	object := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(text), &object.Object)).To(Succeed())
	return object
}
