// Package render turns the templates beside it into the configuration files and manifests of the local cluster.
// It is pure: layout in, bytes out.
package render

import (
	"bytes"
	"embed"
	"fmt"
	"text/template"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

//go:embed templates
var files embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "templates/*"))

// Options is what can differ between two starts.
type Options struct {
	CNIBin      string // the folder with the CNI plugins
	DNSUpstream string // where names outside the cluster are asked; empty: they do not exist
}

type values struct {
	layout.Layout
	Options
	Volume, VolumePath string
}

// The constants of package layout, as fields that templates can name.
func (values) NodeName() string       { return layout.NodeName }
func (values) Bridge() string         { return layout.Bridge }
func (values) NodeIP() string         { return layout.NodeIP }
func (values) PodCIDR() string        { return layout.PodCIDR }
func (values) DNSService() string     { return layout.DNSService }
func (values) Network() string        { return layout.Network }
func (values) PauseImage() string     { return layout.PauseImage }
func (values) VolumeSize() string     { return layout.VolumeSize }
func (values) KubeletPort() int       { return layout.KubeletPort }
func (values) KubeletHealthPort() int { return layout.KubeletHealthPort }
func (values) ProxyHealthPort() int   { return layout.ProxyHealthPort }
func (values) ProxyMetricsPort() int  { return layout.ProxyMetricsPort }
func (values) DNSPort() int           { return layout.DNSPort }

// Files are the configuration files of a cluster, by their path.
func Files(l layout.Layout, o Options) (map[string][]byte, error) {
	out := map[string][]byte{l.In("resolv.conf"): nil} // pods never see the machine's resolvers
	for path, name := range map[string]string{
		l.In("config", "containerd.toml"):             "containerd.toml",
		l.In("config", "kubelet.yaml"):                "kubelet.yaml",
		l.In("config", "kube-proxy.yaml"):             "kube-proxy.yaml",
		l.In("config", "kube-scheduler.yaml"):         "kube-scheduler.yaml",
		l.In("config", "Corefile"):                    "Corefile",
		l.In("cni", "10-"+layout.Network+".conflist"): "cni.conflist",
	} {
		content, err := execute(name, values{Layout: l, Options: o})
		if err != nil {
			return nil, err
		}
		out[path] = content
	}
	return out, nil
}

// Manifests are the objects that every cluster has, one YAML document each.
func Manifests(l layout.Layout) ([][]byte, error) {
	content, err := execute("cluster.yaml", values{Layout: l})
	if err != nil {
		return nil, err
	}
	return bytes.Split(content, []byte("\n---\n")), nil
}

// Volume is the n-th PersistentVolume.
func Volume(l layout.Layout, n int) ([]byte, error) {
	return execute("volume.yaml", values{Layout: l, Volume: layout.VolumeName(n), VolumePath: l.VolumeDir(n)})
}

func execute(name string, v values) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}
