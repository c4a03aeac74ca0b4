package site

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/metip/metip/test/demo/courtdb"
)

// databaseServerSecret holds what the database's pod needs: the superuser's password, certificate, key and authority.
const databaseServerSecret = "court-db-server"

// RunDatabase runs PostgreSQL from its public image in a pod (config/samples/demo/court/postgres.yaml), for clusters whose pods cannot
// reach a server on this machine. dir keeps the authority's certificate.
func (s *Site) RunDatabase(ctx context.Context, dir, name string) error {
	secret, err := s.Secret(ctx, databaseServerSecret)
	if err != nil {
		return err
	}
	if len(secret) == 0 {
		if secret, err = s.makeServerSecret(ctx); err != nil {
			return err
		}
	}
	manifest, err := s.render("court/postgres.yaml", nil)
	if err != nil {
		return err
	}
	if err := s.Cluster.Apply(ctx, manifest); err != nil {
		return err
	}
	if err := s.Cluster.WaitDeployment(ctx, s.Namespace, databaseService); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	caFile := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(caFile, secret["ca.crt"], 0o644); err != nil {
		return err
	}
	server, err := courtdb.Remote(databaseService, 5432, string(secret["password"]), caFile, s.Cluster.Dialer(s.Namespace, databaseService, 5432).Dial)
	if err != nil {
		return err
	}
	return s.useDatabase(ctx, server, name)
}

func (s *Site) makeServerSecret(ctx context.Context) (map[string][]byte, error) {
	authority, err := courtdb.NewAuthority("Northmere Courts")
	if err != nil {
		return nil, err
	}
	certificate, key, err := authority.Issue(databaseService, []string{databaseService, "localhost"}, nil)
	if err != nil {
		return nil, err
	}
	data := map[string]string{"ca.crt": authority.Certificate, "tls.crt": certificate, "tls.key": key, "password": rand.Text()}
	made := map[string][]byte{}
	for k, v := range data {
		made[k] = []byte(v)
	}
	return made, s.SetSecret(ctx, databaseServerSecret, corev1.SecretTypeOpaque, data)
}
