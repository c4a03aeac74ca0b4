package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Folder of the demo's manifests, below the repository's root.
const Folder = "config/samples/demo"

// samplesImage is the case API's in the manifests; another one may replace it.
const samplesImage = "localhost/metip-demo:dev"

// Files of the flow, in the order of its explanation in README.md.
var Files = []string{"integration.yaml", "connectors.yaml", "route.yaml"}

// LookupFiles are what looking up in the court's case API needs, without the flow of arrests.
var LookupFiles = []string{"integration.yaml", "lookup.yaml"}

// ApplyFlow applies the demo's Integration, Connectors and Route to the site's namespace; change may alter each object before.
func (s *Site) ApplyFlow(ctx context.Context, change func(*unstructured.Unstructured)) error {
	return s.ApplyFiles(ctx, Files, change)
}

// ApplyFiles of the demo to the site's namespace; change may alter each object before.
func (s *Site) ApplyFiles(ctx context.Context, files []string, change func(*unstructured.Unstructured)) error {
	for _, file := range files {
		manifest, err := s.render(file, change)
		if err != nil {
			return err
		}
		if err := s.Cluster.Apply(ctx, manifest); err != nil {
			return err
		}
	}
	return nil
}

// render a file of the demo for the site's namespace and images.
func (s *Site) render(file string, change func(*unstructured.Unstructured)) (string, error) {
	content, err := os.ReadFile(filepath.Join(s.Cluster.Root, Folder, file))
	if err != nil {
		return "", err
	}
	objects, err := Parse(content)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var out bytes.Buffer
	for _, object := range objects {
		object.SetNamespace(s.Namespace)
		if object.GetKind() == "Deployment" {
			if err := setImage(object, s.Cluster.DemoImage); err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
		}
		if change != nil {
			change(object)
		}
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "---\n%s", text)
	}
	return out.String(), nil
}

// Parse the objects of a manifest.
func Parse(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		switch err := decoder.Decode(&object.Object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		case len(object.Object) > 0:
			objects = append(objects, object)
		}
	}
}

func setImage(deployment *unstructured.Unstructured, image string) error {
	path := []string{"spec", "template", "spec", "containers"}
	containers, found, err := unstructured.NestedSlice(deployment.Object, path...)
	if err != nil || !found {
		return fmt.Errorf("no containers: %w", err)
	}
	container, ok := containers[0].(map[string]any)
	if !ok {
		return errors.New("the first container is not an object")
	}
	if container["image"] != samplesImage {
		return nil
	}
	container["image"] = image
	return unstructured.SetNestedSlice(deployment.Object, containers, path...)
}
