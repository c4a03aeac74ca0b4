package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/metip/metip/hack/cluster/internal/layout"
)

func writeAll(t *testing.T) layout.Layout {
	t.Helper()
	l := layout.Layout{Root: t.TempDir()}
	if err := os.MkdirAll(l.In("pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteAll(l, time.Now()); err != nil {
		t.Fatal(err)
	}
	return l
}

func load(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatalf("%s holds no PEM block", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificatesAreSignedByTheirAuthorityOnly(t *testing.T) {
	l := writeAll(t)
	signers := map[string]string{"front-proxy-client": "front-proxy-ca", "etcd": "etcd-ca"}
	for _, r := range requests() {
		signers[r.Name] = "ca"
	}
	for name, signer := range signers {
		if _, err := tls.LoadX509KeyPair(l.Cert(name), l.Key(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, authority := range []string{"ca", "front-proxy-ca", "etcd-ca"} {
			roots := x509.NewCertPool()
			roots.AddCert(load(t, l.Cert(authority)))
			_, err := load(t, l.Cert(name)).Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if accepted := err == nil; accepted != (authority == signer) {
				t.Errorf("%s verified by %s: %v (%v)", name, authority, accepted, err)
			}
		}
	}
}

func TestSubjects(t *testing.T) {
	l := writeAll(t)
	kubelet := load(t, l.Cert("kubelet"))
	if got, want := kubelet.Subject.CommonName, "system:node:"+layout.NodeName; got != want {
		t.Errorf("the kubelet is %q, want %q: NodeRestriction knows it by that", got, want)
	}
	if !slices.Equal(kubelet.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("the kubelet's groups are %v", kubelet.Subject.Organization)
	}
	if err := kubelet.VerifyHostname(layout.NodeIP); err != nil {
		t.Errorf("logs and exec would fail: %v", err)
	}
	for _, host := range []string{layout.NodeIP, layout.APIService, "kubernetes.default.svc"} {
		if err := load(t, l.Cert("apiserver")).VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"kube-proxy", "coredns", "kube-scheduler", "kube-controller-manager"} {
		if groups := load(t, l.Cert(name)).Subject.Organization; len(groups) > 0 {
			t.Errorf("%s is in groups %v", name, groups)
		}
	}
}

func TestPrivateFilesAreTheOwners(t *testing.T) {
	l := writeAll(t)
	for _, path := range []string{l.Key("ca"), l.Key("service-account"), l.Kubeconfig("admin")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", path, mode)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	var config struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Name    string
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	content := Kubeconfig("https://10.0.0.1:6443", "someone", []byte("ca"), []byte("cert"), []byte("key"))
	if err := yaml.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 || config.CurrentContext == "" {
		t.Fatalf("unexpected shape: %+v", config)
	}
	cluster, user := config.Clusters[0].Cluster, config.Users[0]
	if cluster.Server != "https://10.0.0.1:6443" || string(cluster.CA) != "ca" || user.Name != "someone" || string(user.User.Cert) != "cert" || string(user.User.Key) != "key" {
		t.Errorf("got %+v", config)
	}
}
