package bus

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"slices"
	"time"
)

// The keys of a Secret that hold a managed Broker's certificates. ca.crt is a bundle, the newest authority first.
const (
	dataCA    = "ca.crt"
	dataCAKey = "ca.key"
	// dataFormerKey signs while the newest authority rests.
	dataFormerKey = "ca.former.key"
	dataCert      = "tls.crt"
	dataKey       = "tls.key"
)

const (
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
	// authorityRest is how long a new authority is only made known before it signs: every client must have the new bundle by then.
	authorityRest = 24 * time.Hour
	// clockSkew that a certificate's beginning allows for.
	clockSkew = 5 * time.Minute
)

// Certificates of a managed Broker's servers, PEM.
type Certificates struct {
	// Bundle is what clients and servers trust.
	Bundle []byte
	// Cert and Key of the servers.
	Cert, Key []byte
	// Expires is when Cert does.
	Expires time.Time
}

// RenewCertificates makes what is missing in data and renews what has lived two thirds of its life, or names other hosts. It returns
// data with the changes, or data itself when there are none. It depends on nothing but its arguments.
func RenewCertificates(data map[string][]byte, hosts []string, now time.Time) (map[string][]byte, bool, error) {
	out := maps.Clone(data)
	if out == nil {
		out = map[string][]byte{}
	}
	authorities := parseCertificates(out[dataCA])
	authorities = slices.DeleteFunc(authorities, func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
	key, err := parseKey(out[dataCAKey])
	if err != nil || len(authorities) == 0 || !signs(authorities[0], key) || lived(authorities[0], now) {
		authority, made, err := newAuthority(now)
		if err != nil {
			return nil, false, err
		}
		if key != nil {
			out[dataFormerKey] = out[dataCAKey]
		}
		key, authorities = made, append([]*x509.Certificate{authority}, authorities...)
		if out[dataCAKey], err = encodeKey(key); err != nil {
			return nil, false, err
		}
	}
	out[dataCA] = encodeCertificates(authorities)
	if !serves(out, authorities, hosts, now) {
		signer := authorities[0]
		if former, err := parseKey(out[dataFormerKey]); err == nil && !rested(signer, now) && len(authorities) > 1 && signs(authorities[1], former) {
			signer, key = authorities[1], former
		}
		cert, made, err := newCertificate(signer, key, hosts, now)
		if err != nil {
			return nil, false, err
		}
		out[dataCert] = encodeCertificates([]*x509.Certificate{cert})
		if out[dataKey], err = encodeKey(made); err != nil {
			return nil, false, err
		}
	}
	if maps.EqualFunc(out, data, bytes.Equal) {
		return data, false, nil
	}
	return out, true, nil
}

// ReadCertificates from data that RenewCertificates returned.
func ReadCertificates(data map[string][]byte) (Certificates, error) {
	certs := parseCertificates(data[dataCert])
	if len(certs) == 0 || len(data[dataCA]) == 0 || len(data[dataKey]) == 0 {
		return Certificates{}, errors.New("certificates are missing")
	}
	return Certificates{Bundle: data[dataCA], Cert: data[dataCert], Key: data[dataKey], Expires: certs[0].NotAfter}, nil
}

// serves says that the servers' certificate is good for a while: signed by an authority of the bundle (the newest, once that has
// rested), for the hosts, and young enough.
func serves(data map[string][]byte, authorities []*x509.Certificate, hosts []string, now time.Time) bool {
	certs := parseCertificates(data[dataCert])
	key, err := parseKey(data[dataKey])
	if err != nil || len(certs) == 0 || !signs(certs[0], key) || lived(certs[0], now) {
		return false
	}
	cert := certs[0]
	newest := authorities[0]
	if cert.CheckSignatureFrom(newest) != nil {
		signed := slices.ContainsFunc(authorities, func(a *x509.Certificate) bool { return cert.CheckSignatureFrom(a) == nil })
		if rested(newest, now) || !signed {
			return false
		}
	}
	return !slices.ContainsFunc(hosts, func(h string) bool { return !names(cert, h) })
}

// names says that a certificate names a host, literally.
func names(cert *x509.Certificate, host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return slices.ContainsFunc(cert.IPAddresses, ip.Equal)
	}
	return slices.Contains(cert.DNSNames, host)
}

// lived says that two thirds of a certificate's life are over.
func lived(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3))
}

// rested says that every client knows an authority by now.
func rested(authority *x509.Certificate, now time.Time) bool {
	return now.Sub(authority.NotBefore) > authorityRest+clockSkew
}

func signs(cert *x509.Certificate, key *ecdsa.PrivateKey) bool {
	return key != nil && key.PublicKey.Equal(cert.PublicKey)
}

func newAuthority(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	template, err := template(now, authorityLife)
	if err != nil {
		return nil, nil, err
	}
	template.Subject = pkix.Name{CommonName: "MetIP broker authority " + now.UTC().Format("2006-01-02")}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return sign(template, nil, nil)
}

// newCertificate serves clients and other servers, and is what a server shows to its peers.
func newCertificate(authority *x509.Certificate, key *ecdsa.PrivateKey, hosts []string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	template, err := template(now, certificateLife)
	if err != nil {
		return nil, nil, err
	}
	template.Subject = pkix.Name{CommonName: "MetIP broker"}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return sign(template, authority, key)
}

func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life)}, nil
}

// sign a template with a new key; without a parent it signs itself.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func parseCertificates(text []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, cert)
		}
	}
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no private key")
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
