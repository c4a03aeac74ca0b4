package pki

import (
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

// requests lists what the cluster's main authority signs.
func requests() []Request {
	return []Request{
		{
			Name: "apiserver", CommonName: "kube-apiserver",
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			IPs:      []string{"127.0.0.1", layout.NodeIP, layout.APIService},
		},
		{Name: "apiserver-kubelet-client", CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		{Name: "admin", CommonName: "metip-cluster-admin", Organization: []string{"system:masters"}},
		{
			Name: "kubelet", CommonName: "system:node:" + layout.NodeName, Organization: []string{"system:nodes"},
			DNSNames: []string{layout.NodeName}, IPs: []string{layout.NodeIP},
		},
		{Name: "kube-controller-manager", CommonName: "system:kube-controller-manager", DNSNames: []string{"localhost"}, IPs: []string{"127.0.0.1"}},
		{Name: "kube-scheduler", CommonName: "system:kube-scheduler", DNSNames: []string{"localhost"}, IPs: []string{"127.0.0.1"}},
		{Name: "kube-proxy", CommonName: "system:kube-proxy"},
		{Name: "coredns", CommonName: "system:coredns"},
	}
}

// kubeconfigs names the certificates that a kubeconfig is made for.
var kubeconfigs = []string{"admin", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"}

// WriteAll makes every certificate, key and kubeconfig of a new cluster. Three authorities, so that a client of
// etcd or of the aggregation layer is nobody to the API server and the other way round.
func WriteAll(l layout.Layout, now time.Time) error {
	dir := l.In("pki")
	ca, err := NewAuthority(dir, "ca", now)
	if err != nil {
		return err
	}
	for _, r := range requests() {
		if err := ca.Issue(dir, r, now); err != nil {
			return err
		}
	}
	frontProxy, err := NewAuthority(dir, "front-proxy-ca", now)
	if err != nil {
		return err
	}
	if err := frontProxy.Issue(dir, Request{Name: "front-proxy-client", CommonName: "front-proxy-client"}, now); err != nil {
		return err
	}
	etcd, err := NewAuthority(dir, "etcd-ca", now)
	if err != nil {
		return err
	}
	if err := etcd.Issue(dir, Request{Name: "etcd", CommonName: "etcd", DNSNames: []string{"localhost"}, IPs: []string{"127.0.0.1"}}, now); err != nil {
		return err
	}
	if err := WriteKeyPair(dir, "service-account"); err != nil {
		return err
	}
	for _, name := range kubeconfigs {
		if err := writeKubeconfig(l, name, ca.PEM()); err != nil {
			return err
		}
	}
	return nil
}

func writeKubeconfig(l layout.Layout, name string, ca []byte) error {
	cert, err := os.ReadFile(l.Cert(name))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(l.Key(name))
	if err != nil {
		return err
	}
	return os.WriteFile(l.Kubeconfig(name), Kubeconfig(layout.APIServer(), name, ca, cert, key), 0o600)
}

// Kubeconfig is a kubeconfig with everything in it, so that the file can be copied.
func Kubeconfig(server, user string, ca, cert, key []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: metip-cluster
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: metip-cluster
  context: {cluster: metip-cluster, user: %s}
current-context: metip-cluster
`, server, b64(ca), user, b64(cert), b64(key), user)
}
