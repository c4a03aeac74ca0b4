package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// lifetime of a certificate and of its authority, and when before its end both are replaced.
	lifetime    = 90 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
	// backdate lets clocks differ.
	backdate = time.Hour
)

// bundle is what the Secret holds. The authority's key is thrown away: each certificate has an authority of its own.
type bundle struct {
	// ca are the authorities that are trusted, PEM: of this certificate first, of the one before it second, so that replicas that
	// still serve that one are trusted.
	ca        []byte
	cert, key []byte
}

// newBundle makes a certificate for the names. former authorities that are still valid stay trusted.
func newBundle(names []string, former []byte, now time.Time) (bundle, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return bundle{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return bundle{}, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "metip webhook authority " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return bundle{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return bundle{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: new(big.Int).Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return bundle{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return bundle{}, err
	}
	trusted := encode("CERTIFICATE", caDER)
	if c, err := parseFirst(former); err == nil && now.Before(c.NotAfter) {
		trusted = append(trusted, encode("CERTIFICATE", c.Raw)...)
	}
	return bundle{ca: trusted, cert: encode("CERTIFICATE", der), key: encode("PRIVATE KEY", keyDER)}, nil
}

// load a bundle: the certificate to serve. It is an error when the certificate is not for the names, ends soon, or does not chain to its authorities.
func (b bundle) load(names []string, now time.Time) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(b.cert, b.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.ca)
	for _, name := range names {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			return nil, err
		}
	}
	if now.Add(renewBefore).After(pair.Leaf.NotAfter) {
		return &pair, errSoon
	}
	return &pair, nil
}

// errSoon says that a certificate works and must be replaced.
var errSoon = errors.New("the certificate ends soon")

func encode(kind string, der []byte) []byte {
	var out bytes.Buffer
	_ = pem.Encode(&out, &pem.Block{Type: kind, Bytes: der}) // a buffer takes everything
	return out.Bytes()
}

func parseFirst(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
