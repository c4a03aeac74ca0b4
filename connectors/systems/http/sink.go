package http

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	// connectTimeout of dialling, and of the TLS handshake: shorter than a delivery's timeout, so that a dead system shows soon.
	connectTimeout = 5 * time.Second
	idleConns      = 256
	// alertWait is how long Check waits for the answer to our certificate, which in TLS 1.3 comes after the handshake.
	alertWait = 250 * time.Millisecond
)

// sink makes requests of messages over one pool of connections.
type sink struct {
	rt      sdk.Runtime
	base    *url.URL
	request json.RawMessage
	tls     *tlsfiles.Client
	// explain an answer that is not 2xx; nil where the status and an excerpt say it.
	explain Explain

	mu        sync.Mutex
	transport *http.Transport
	serial    uint64 // of the TLS configuration that transport was made with

	current atomic.Pointer[sinkCredentials]
}

// NewSink makes a sink of the JSON of the API's HTTPSink.
func NewSink(rt sdk.Runtime, options json.RawMessage) (sdk.Sink, error) {
	base, request, err := decodeSinkOptions(options)
	if err != nil {
		return nil, err
	}
	return newSink(rt, base, request)
}

func newSink(rt sdk.Runtime, base *url.URL, request json.RawMessage) (*sink, error) {
	switch rt.Config.Auth.Kind {
	case contract.AuthAnonymous, contract.AuthNone, contract.AuthBasic, contract.AuthBearer, contract.AuthHMAC:
	default:
		return nil, fmt.Errorf("auth %q is not one of anonymous, basic, bearer and hmac", rt.Config.Auth.Kind)
	}
	s := &sink{rt: rt, base: base, request: request, tls: tlsfiles.NewClient(rt, base.Hostname(), "h2", "http/1.1")}
	if base.Scheme == "http" {
		s.tls = nil
	}
	return s, nil
}

// client is the pool of connections; a new one when the certificates have changed, while requests on the old one finish.
func (s *sink) client() (*http.Transport, error) {
	var config *tls.Config
	var serial uint64
	if s.tls != nil {
		var err error
		if config, serial, err = s.tls.Config(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transport != nil && s.serial == serial {
		return s.transport, nil
	}
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	s.serial = serial
	s.transport = &http.Transport{
		DialContext:            s.dial,
		TLSClientConfig:        config.Clone(), // the transport adds to it
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           idleConns,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // answers are read as they come, so that none can unfold into gigabytes
	}
	return s.transport, nil
}

func (s *sink) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return s.rt.Dial(ctx, network, address)
}

// Check connects, shows and checks certificates, and lets go. Whether a password or token is accepted only requests can tell.
func (s *sink) Check(ctx context.Context) error {
	if err := s.credentials().err; err != nil {
		return err
	}
	return s.probe(ctx)
}

// probe tells whether a connection can be made.
func (s *sink) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := s.dial(ctx, "tcp", s.address())
	if err != nil {
		return connectError(s.base.String(), err)
	}
	defer func() { _ = conn.Close() }()
	if s.tls == nil {
		return nil
	}
	config, _, err := s.tls.Config()
	if err != nil {
		return err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return connectError(s.base.String(), err)
	}
	if len(config.Certificates) == 0 {
		return nil
	}
	_ = secure.SetReadDeadline(time.Now().Add(alertWait))
	if _, err := secure.Read(make([]byte, 1)); tlsfiles.IsCertificateError(err) {
		return connectError(s.base.String(), err)
	}
	return nil
}

func (s *sink) showsCertificate() bool {
	return s.tls != nil && s.rt.Config.TLS != nil && s.rt.Config.TLS.Certificate
}

func (s *sink) address() string {
	port := s.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[s.base.Scheme]
	}
	return net.JoinHostPort(s.base.Hostname(), port)
}

// connectError is the state of a system that cannot be reached at the endpoint, or not safely.
func connectError(endpoint string, err error) error {
	reason := contract.ReasonConnectionFailed
	if tlsfiles.IsCertificateError(err) {
		reason = contract.ReasonCertificateInvalid
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		err = fmt.Errorf("%w (does the system speak plain HTTP? then write http:// in url)", err)
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", endpoint, err))
}

// Close lets idle connections go.
func (s *sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	return nil
}

// sinkCredentials are what the mounted Secret holds, parsed once for each of its changes.
type sinkCredentials struct {
	version       uint64
	err           error
	authorization string
	key           []byte
	// hidden are values that must not be repeated in an error, whatever the system writes into its answers.
	hidden []string
}

func (s *sink) credentials() *sinkCredentials {
	version := s.rt.Secrets.Version()
	if c := s.current.Load(); c != nil && c.version == version {
		return c
	}
	c := &sinkCredentials{}
	c.err = c.read(s.rt.Config.Auth, s.rt.Secrets)
	c.version = version
	s.current.Store(c)
	return c
}

func (c *sinkCredentials) read(auth contract.Auth, secrets sdk.Secrets) error {
	value := func(file string) (string, error) {
		b, err := secrets.Get(file)
		if err != nil {
			return "", err
		}
		text := strings.TrimSpace(string(b))
		if text == "" {
			return "", emptySecret(auth)
		}
		c.hidden = append(c.hidden, text)
		return text, nil
	}
	switch auth.Kind {
	case contract.AuthBasic:
		user, err := value(contract.FileUsername)
		if err != nil {
			return err
		}
		c.hidden = nil // a user name is no secret
		password, err := value(contract.FilePassword)
		if err != nil {
			return err
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		c.hidden = append(c.hidden, encoded)
		c.authorization = "Basic " + encoded
	case contract.AuthBearer:
		token, err := value(contract.FileToken)
		if err != nil {
			return err
		}
		if checkAttribute(token) != nil {
			return sdk.Unavailable(contract.ReasonCredentialsMissing,
				fmt.Errorf("Secret %s, key %s: a sink sends one token, and the value holds several lines or control characters",
					auth.SecretName, strings.Join(auth.Keys, " or ")))
		}
		c.authorization = "Bearer " + token
	case contract.AuthHMAC:
		key, err := value(contract.FileHMACKey)
		if err != nil {
			return err
		}
		c.key = []byte(key)
	}
	return nil
}
