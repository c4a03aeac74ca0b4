package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// files are the mounted values that one configuration is made of.
type files struct{ ca, cert, key []byte }

func (f files) equal(o files) bool {
	return bytes.Equal(f.ca, o.ca) && bytes.Equal(f.cert, o.cert) && bytes.Equal(f.key, o.key)
}

func read(spec *contract.TLS, secrets sdk.Secrets) (files, error) {
	var f files
	var err error
	if spec == nil {
		return f, nil
	}
	if spec.CA {
		if f.ca, err = secrets.Get(contract.FileCA); err != nil {
			return f, err
		}
	}
	if spec.Certificate {
		if f.cert, err = secrets.Get(contract.FileTLSCert); err != nil {
			return f, err
		}
		if f.key, err = secrets.Get(contract.FileTLSKey); err != nil {
			return f, err
		}
	}
	return f, nil
}

func invalid(from, format string, a ...any) error {
	if from == "" {
		from = "the mounted certificate"
	}
	return sdk.Unavailable(contract.ReasonCertificateInvalid, fmt.Errorf("%s: %w", from, fmt.Errorf(format, a...)))
}

// build checks the files and parses them. Either result may be nil, when the spec does not ask for it.
func build(spec *contract.TLS, f files) (*x509.CertPool, *tls.Certificate, error) {
	if spec == nil {
		return nil, nil, nil
	}
	var pool *x509.CertPool
	if spec.CA {
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(f.ca) {
			return nil, nil, invalid(spec.CAFrom, "it holds no PEM certificate")
		}
	}
	if !spec.Certificate {
		return pool, nil, nil
	}
	pair, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, nil, invalid(spec.CertificateFrom, "tls.crt and tls.key: %w", err)
	}
	return pool, &pair, nil
}

// Client keeps the configuration of connections to a system. It is safe for concurrent use.
type Client struct {
	spec       *contract.TLS
	secrets    sdk.Secrets
	serverName string
	protocols  []string

	mu      sync.Mutex
	version uint64
	loaded  bool
	current files
	config  *tls.Config
	serial  uint64
	err     error
}

// NewClient for connections to host, whose certificate must carry that name (or spec.ServerName) and chain to the mounted
// CA, or to the image's own authorities where the spec has none. Protocols are offered by ALPN.
func NewClient(rt sdk.Runtime, host string, protocols ...string) *Client {
	c := &Client{spec: rt.Config.TLS, secrets: rt.Secrets, serverName: host, protocols: protocols}
	if c.spec != nil && c.spec.ServerName != "" {
		c.serverName = c.spec.ServerName
	}
	return c
}

// Config is the present configuration, and a number that changes with its content: a connection made with another number
// shows old certificates. An error is an *sdk.UnavailableError.
func (c *Client) Config() (*tls.Config, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	version := c.secrets.Version()
	if c.loaded && c.version == version {
		return c.config, c.serial, c.err
	}
	f, err := read(c.spec, c.secrets)
	if err == nil && c.config != nil && c.err == nil && f.equal(c.current) {
		c.version = version
		return c.config, c.serial, nil
	}
	c.version, c.loaded, c.current, c.err = version, true, f, err
	if err != nil {
		return nil, c.serial, err
	}
	pool, pair, err := build(c.spec, f)
	if err != nil {
		c.err = err
		return nil, c.serial, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName, RootCAs: pool, NextProtos: c.protocols}
	if pair != nil {
		config.Certificates = []tls.Certificate{*pair}
	}
	c.config = config
	c.serial++
	return config, c.serial, nil
}

// Server makes the configuration of a listener: the mounted certificate and, where a CA is mounted, callers must show a
// certificate that chains to it. An error is an *sdk.UnavailableError. NotAfter is when the certificate expires.
func Server(rt sdk.Runtime, protocols ...string) (config *tls.Config, notAfter time.Time, err error) {
	spec := rt.Config.TLS
	f, err := read(spec, rt.Secrets)
	if err != nil {
		return nil, notAfter, err
	}
	pool, pair, err := build(spec, f)
	if err != nil {
		return nil, notAfter, err
	}
	if pair == nil {
		return nil, notAfter, invalid("", "spec.tls.certificate is not set, and a listener with tls needs one")
	}
	config = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*pair}, NextProtos: protocols}
	if pool != nil {
		config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return config, pair.Leaf.NotAfter, nil
}

// IsCertificateError tells whether a connection failed because one side refused the other's certificate, as opposed to the network or
// the protocol.
func IsCertificateError(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		host         x509.HostnameError
		invalid      x509.CertificateInvalidError
		roots        x509.SystemRootsError
	)
	if errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &roots) {
		return true
	}
	return isAlert(err)
}

// isAlert finds the alerts by which the other side refuses our certificate; crypto/tls does not export their type.
func isAlert(err error) bool {
	_, alert, found := strings.Cut(fmt.Sprint(err), "remote error: tls: ")
	if !found {
		return false
	}
	return strings.Contains(alert, "certificate")
}
