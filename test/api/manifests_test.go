package api_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/metip/metip/api/v1alpha1"
)

var (
	samples = manifestsBelow(filepath.Join(root, "config", "samples"))
	invalid = manifestsBelow("invalid")
)

var _ = Describe("Samples", func() {
	for _, path := range samples {
		It("accepts "+filepath.Base(path), func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			for _, object := range parseManifest(path) {
				object.SetNamespace(namespace)
				Expect(api.Create(ctx, object, strictly)).To(Succeed())
			}
		})
	}

	It("has every kind and every member of every union", func() {
		for _, needle := range []string{
			"kind: Broker", "managed:", "external:", "kind: Integration", "kind: Connector", "http: {}", "httpPoll:", "custom:", "position:", "operation:\n      custom:", "          answer:", "          item:", "schedule:", "    kafka:", "operation:\n      kafka:", "consumer:", "      publish:\n        subject:", "operation:\n      nats:", "generator:", "    log:", "    mail:", "operation:\n      mail:", "postgres:", "capture:", "      query:", "function:", "arguments:", "      table:", "notify:", "files:", "lines: {}", "fixedWidth:", "        xml:", "append:", "rotate:", "operation:\n      files:",
			"rabbitmq:", "deadLetter:", "operation:\n      rabbitmq:",
			"soap:", "wsdl:", "security: UsernameToken", "operation:\n      soap:", "content: Envelope", "mqtt:", "operation:\n      mqtt:", "stomp:", "operation:\n      stomp:", "amqp10:", "operation:\n      amqp10:", "sftp:", "ssh:", "operation:\n      sftp:",
			"bearer:", "basic:", "hmac:", "anonymous: {}", "kind: Route", "filter:", "transform:", "cel:", "setHeaders:", "redact:", "wireTap:", "recipientList:", "loadBalance:", "operation:", "event:", "events:", "delay:", "throttle:", "deduplicate:", "aggregate:", "resequence:", "validate:", "jsonSchema:", "xml: {}", "convert:", "csv:", "avro:", "charset:", "split:", "schema:",
			"kind: Replay", "    time:", "sequences:", "ids:", "deadLetters:", "dryRun:",
			"service:", "stub:", "faults:", "cache:", "exchange: RequestReply", "call:", "response:",
		} {
			Expect(samples).To(ContainElement(Satisfy(func(path string) bool {
				return bytes.Contains(readFile(path), []byte(needle))
			})), "no sample has %q", needle)
		}
	})

	It("lists every file in its kustomization", func() {
		Expect(resourcesOf("config/samples")).To(ConsistOf(namesOf("config/samples", "*-*.yaml")))
	})
})

// What people copy from the documentation has to work.
var _ = Describe("Manifests in documents", func() {
	for path, blocks := range documentedManifests() {
		for i, block := range blocks {
			It(fmt.Sprintf("accepts block %d of %s", i+1, path), func(ctx SpecContext) {
				namespace := newNamespace(ctx)
				for _, object := range parseObjects(block) {
					object.SetNamespace(namespace)
					Expect(api.Create(ctx, object, strictly)).To(Succeed())
				}
			})
		}
	}
})

// documentedManifests are the blocks of YAML in Markdown files that hold whole objects of MetIP's kinds.
func documentedManifests() map[string][][]byte {
	block := regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```$")
	found := map[string][][]byte{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			panic(err) // a mistake in the pattern
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				panic(err) // before the suite runs there is nobody to report to
			}
			for _, m := range block.FindAllSubmatch(content, -1) {
				if bytes.Contains(m[1], []byte("apiVersion: "+v1alpha1.GroupVersion.String())) {
					name, _ := filepath.Rel(root, path)
					found[name] = append(found[name], m[1])
				}
			}
		}
	}
	return found
}

var _ = Describe("Kustomizations", func() {
	It("install every kind", func() {
		var want []string
		for _, name := range namesOf("config/crd/bases", "*.yaml") {
			want = append(want, "bases/"+name)
		}
		Expect(resourcesOf("config/crd")).To(ConsistOf(want))
	})

	It("build", func() {
		paths, err := filepath.Glob(filepath.Join(root, "config", "*", "kustomization.yaml"))
		Expect(err).NotTo(HaveOccurred())
		for _, path := range append(paths, filepath.Join(root, "config/samples/demo/kustomization.yaml")) {
			Expect(kubectl("kustomize", filepath.Dir(path))).NotTo(BeEmpty(), path)
		}
	})
})

// resourcesOf lists the resources of a folder's kustomization.
func resourcesOf(folder string) []string {
	GinkgoHelper()
	kustomization := struct{ Resources []string }{}
	Expect(yaml.Unmarshal(readFile(filepath.Join(root, folder, "kustomization.yaml")), &kustomization)).To(Succeed())
	return kustomization.Resources
}

// namesOf lists the files of a folder whose name matches the pattern.
func namesOf(folder, pattern string) (names []string) {
	GinkgoHelper()
	files, err := filepath.Glob(filepath.Join(root, folder, pattern))
	Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}

// The first line of an invalid manifest is `# want: <part of the API server's message>`. All its documents but the last are applied first
// and must be accepted; the last must be refused, so that a pair of documents tests an update.
var _ = Describe("Invalid manifests", func() {
	It("are many", func() { Expect(len(invalid)).To(BeNumerically(">=", 25)) })

	for _, path := range invalid {
		It("refuses "+filepath.Base(path), func(ctx SpecContext) {
			want, ok := wantedMessage(readFile(path))
			Expect(ok).To(BeTrue(), "the first line must be `# want: <message>`")
			objects := parseManifest(path)
			Expect(objects).NotTo(BeEmpty())

			namespace := newNamespace(ctx)
			for i, object := range objects {
				object.SetNamespace(namespace)
				err := apply(ctx, object)
				if i < len(objects)-1 {
					Expect(err).NotTo(HaveOccurred(), "document %d is there to be accepted", i+1)
					continue
				}
				Expect(err).To(MatchError(ContainSubstring(want)))
				AddReportEntry("message", err.Error())
			}
		})
	}
})

// strictly makes unknown and duplicate fields an error, as kubectl does.
var strictly = client.FieldValidation("Strict")

// apply creates the object or, when it is there, replaces it, as `kubectl replace` does.
func apply(ctx SpecContext, object *unstructured.Unstructured) error {
	there := &unstructured.Unstructured{}
	there.SetGroupVersionKind(object.GroupVersionKind())
	if err := api.Get(ctx, client.ObjectKeyFromObject(object), there); err == nil {
		object.SetResourceVersion(there.GetResourceVersion())
		return api.Update(ctx, object, strictly)
	}
	return api.Create(ctx, object, strictly)
}

func wantedMessage(manifest []byte) (string, bool) {
	first, _, _ := strings.Cut(string(manifest), "\n")
	want, ok := strings.CutPrefix(first, "# want: ")
	return strings.TrimSpace(want), ok && strings.TrimSpace(want) != ""
}

// manifestsBelow lists the YAML files below dir, but for kustomizations.
func manifestsBelow(dir string) []string {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".yaml" && entry.Name() != "kustomization.yaml" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		panic(err) // before the suite runs there is nobody to report to
	}
	return paths
}

func readFile(path string) []byte {
	GinkgoHelper()
	content, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	return content
}

// parseManifest reads the objects of MetIP's kinds in a file; others (a sample's Deployment) are not what is tested here.
func parseManifest(path string) []*unstructured.Unstructured {
	GinkgoHelper()
	return parseObjects(readFile(path))
}

func parseObjects(manifest []byte) []*unstructured.Unstructured {
	GinkgoHelper()
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := decoder.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		Expect(err).NotTo(HaveOccurred())
		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal(document, &object.Object)).To(Succeed(), "%s", document)
		if object.GroupVersionKind().Group == v1alpha1.GroupVersion.Group {
			objects = append(objects, object)
		}
	}
}
