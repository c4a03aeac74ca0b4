package render

import (
	"encoding/json"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/metip/metip/hack/cluster/internal/kube"
	"github.com/metip/metip/hack/cluster/internal/layout"
)

var repository = layout.Layout{Root: "/repo"}

func TestFilesAreWellFormed(t *testing.T) {
	files, err := Files(repository, Options{CNIBin: "/usr/lib/cni"})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range files {
		text := string(content)
		if strings.Contains(text, "{{") || strings.Contains(text, "<no value>") {
			t.Errorf("%s has holes:\n%s", path, text)
		}
		var parsed map[string]any
		switch {
		case strings.HasSuffix(path, ".yaml"):
			if err := yaml.UnmarshalStrict(content, &parsed); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		case strings.HasSuffix(path, ".conflist"):
			if err := json.Unmarshal(content, &parsed); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func TestDNSUpstream(t *testing.T) {
	for upstream, want := range map[string]string{"": "rcode NXDOMAIN", "192.0.2.53": "forward . 192.0.2.53"} {
		files, err := Files(repository, Options{DNSUpstream: upstream})
		if err != nil {
			t.Fatal(err)
		}
		corefile := string(files[repository.In("config", "Corefile")])
		if !strings.Contains(corefile, want) {
			t.Errorf("upstream %q: no %q in\n%s", upstream, want, corefile)
		}
	}
}

func TestManifestsHavePaths(t *testing.T) {
	manifests, err := Manifests(repository)
	if err != nil {
		t.Fatal(err)
	}
	volume, err := Volume(repository, 7)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, manifest := range append(manifests, volume) {
		path, err := kube.Path(manifest)
		if err != nil {
			t.Errorf("%v in\n%s", err, manifest)
		}
		paths = append(paths, path)
	}
	all := strings.Join(paths, "\n")
	for _, want := range []string{
		"/api/v1/namespaces/kube-system/services/kube-dns",
		"/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-host",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/system:coredns",
		"/apis/storage.k8s.io/v1/storageclasses/standard",
		"/api/v1/persistentvolumes/local-007",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s among\n%s", want, all)
		}
	}
}
