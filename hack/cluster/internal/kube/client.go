// Package kube is the little of a Kubernetes client that starting and checking the local cluster needs. It talks
// plain HTTPS, so that the tool starts at once and does not link a client library.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

// ErrNotFound is the API server's 404.
var ErrNotFound = errors.New("not found")

// Client speaks to the local cluster's API server as its administrator.
type Client struct {
	http *http.Client
	base string
}

// New reads the administrator's certificate from the cluster's state.
func New(l layout.Layout) (*Client, error) {
	cert, err := tls.LoadX509KeyPair(l.Cert("admin"), l.Key("admin"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(l.Cert("ca"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 5 * time.Second,
	}
	return &Client{http: &http.Client{Transport: transport, Timeout: 10 * time.Second}, base: layout.APIServer()}, nil
}

// Raw gets a path and returns the body of a 200.
func (c *Client) Raw(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, "", nil)
}

// Get decodes the object at path.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	body, err := c.Raw(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// Delete deletes the object at path; one that is gone already is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.do(ctx, http.MethodDelete, path, "", nil)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Apply applies one YAML document on the server.
func (c *Client) Apply(ctx context.Context, manifest []byte) error {
	path, err := Path(manifest)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPatch, path+"?fieldManager=metip-cluster&force=true", "application/apply-patch+yaml", manifest)
	return err
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s %s: %w", method, path, ErrNotFound)
	case resp.StatusCode >= 300:
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, message(content))
	}
	return content, nil
}

// message is what the API server says in its Status object, or the body where it sent something else.
func message(body []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(body, &status) == nil && status.Message != "" {
		return status.Message
	}
	return string(bytes.TrimSpace(body))
}

// resources are the plural names of the kinds that the cluster's own manifests use.
var resources = map[string]string{
	"ClusterRole":           "clusterroles",
	"ClusterRoleBinding":    "clusterrolebindings",
	"Service":               "services",
	"EndpointSlice":         "endpointslices",
	"StorageClass":          "storageclasses",
	"PersistentVolume":      "persistentvolumes",
	"PersistentVolumeClaim": "persistentvolumeclaims",
	"Namespace":             "namespaces",
	"Pod":                   "pods",
}

// Path is where the API server keeps the object that a YAML document describes.
func Path(manifest []byte) (string, error) {
	var o struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(manifest, &o); err != nil {
		return "", err
	}
	resource, ok := resources[o.Kind]
	if !ok || o.Metadata.Name == "" {
		return "", fmt.Errorf("manifest of kind %q, name %q: the kind is unknown or the name missing", o.Kind, o.Metadata.Name)
	}
	path := "/apis/" + o.APIVersion
	if o.APIVersion == "v1" {
		path = "/api/v1"
	}
	if o.Metadata.Namespace != "" {
		path += "/namespaces/" + url.PathEscape(o.Metadata.Namespace)
	}
	return path + "/" + resource + "/" + url.PathEscape(o.Metadata.Name), nil
}
