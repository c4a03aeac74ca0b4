package webhook

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"
)

func TestRotationKeepsTheFormerAuthorityTrusted(t *testing.T) {
	names := []string{"metip-webhook.metip-system.svc"}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	first, err := newBundle(names, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	old, err := first.load(names, start)
	if err != nil {
		t.Fatalf("a new certificate must be good: %v", err)
	}
	soon := start.Add(lifetime - renewBefore + time.Hour)
	if _, err := first.load(names, soon); !errors.Is(err, errSoon) {
		t.Fatalf("shortly before its end: %v, want errSoon", err)
	}
	second, err := newBundle(names, first.ca, soon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.load(names, soon); err != nil {
		t.Fatalf("the second certificate: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(second.ca)
	if _, err := old.Leaf.Verify(x509.VerifyOptions{DNSName: names[0], Roots: roots, CurrentTime: soon}); err != nil {
		t.Errorf("a replica that still serves the former certificate is not trusted: %v", err)
	}
	third, err := newBundle(names, second.ca, soon)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(third.ca); n > 2*len(encode("CERTIFICATE", old.Leaf.Raw))+400 {
		t.Errorf("the bundle grows with each rotation: %d bytes", n)
	}
	if _, err := second.load([]string{"other.svc"}, soon); err == nil {
		t.Error("a certificate for other names must be replaced")
	}
}
