package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/metip/metip/api/v1alpha1"
)

// apiServer is a real one with its etcd; there is no kubelet and no controller manager, so that pods never come to be.
type apiServer struct {
	environment *envtest.Environment
	// client of the administrator, whose requests are not counted.
	client client.Client
	// kubeconfig of the operator: its ServiceAccount, with the permissions of config/rbac.
	kubeconfig string
	audit      *audit
}

func startAPIServer(ctx context.Context, dir, assets string) (started *apiServer, err error) {
	policy, log, err := writeAuditPolicy(dir, operatorUser)
	if err != nil {
		return nil, err
	}
	s := &apiServer{audit: &audit{path: log}, environment: &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     []string{filepath.Join("config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}}
	s.environment.ControlPlane.GetAPIServer().Configure().
		Append("audit-policy-file", policy).
		Append("audit-log-path", log)
	defer func() {
		if err != nil { // also what Start itself began
			err = errors.Join(err, s.stop())
		}
	}()
	admin, err := s.environment.Start()
	if err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver of %s: %w", assets, err)
	}
	if s.client, err = newClient(admin); err != nil {
		return nil, err
	}
	administrator, err := s.environment.AddUser(envtest.User{Name: "bench", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return nil, err
	}
	if err := s.applyRBAC(ctx, dir, assets, administrator); err != nil {
		return nil, err
	}
	operator, err := s.environment.AddUser(envtest.User{
		Name: operatorUser, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace},
	}, nil)
	if err != nil {
		return nil, err
	}
	s.kubeconfig = filepath.Join(dir, "operator.conf")
	raw, err := operator.KubeConfig()
	if err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.kubeconfig, raw, 0o600)
}

// newClient knows MetIP's kinds, and is not slowed down on its own side.
func newClient(config *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.QPS = -1
	return client.New(config, client.Options{Scheme: scheme})
}

// applyRBAC gives the operator the permissions that it has in a cluster, and no others.
func (s *apiServer) applyRBAC(ctx context.Context, dir, assets string, administrator *envtest.AuthenticatedUser) error {
	raw, err := administrator.KubeConfig()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "admin.conf")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return err
	}
	kubectl := filepath.Join(assets, "kubectl")
	for _, args := range [][]string{
		{"create", "namespace", operatorNamespace},
		{"apply", "-k", filepath.Join("config", "rbac")},
	} {
		cmd := exec.CommandContext(ctx, kubectl, append([]string{"--kubeconfig", path}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl %v: %w\n%s", args, err, out)
		}
	}
	return nil
}

func (s *apiServer) stop() error { return s.environment.Stop() }
