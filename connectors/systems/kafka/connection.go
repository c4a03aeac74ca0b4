package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 5 * time.Second
	// alertWait is how long a server that breaks off is given to say that it is our certificate's fault.
	alertWait = 250 * time.Millisecond
	// maxFrame of a request or an answer: a batch with one message of the largest size, and what is around it.
	maxFrame = contract.MaxMessageSize + contract.MaxHeaderSize + 64<<10
)

// dialer makes clients of a cluster.
type dialer struct {
	rt      sdk.Runtime
	options connectionOptions
	tls     *tlsfiles.Client // nil: not encrypted

	mu sync.Mutex
	// broken is why the last connection could not be made; nil since one could.
	broken error
}

func newDialer(rt sdk.Runtime, o connectionOptions) (*dialer, error) {
	secure, err := o.parse()
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthBasic, contract.AuthAnonymous:
	default:
		return nil, fmt.Errorf("auth %q is neither basic nor anonymous", rt.Config.Auth.Kind)
	}
	d := &dialer{rt: rt, options: o}
	if secure {
		host, _, _ := net.SplitHostPort(o.Servers[0])
		d.tls = tlsfiles.NewClient(rt, host)
	}
	return d, nil
}

// endpoint of errors.
func (d *dialer) endpoint() string { return "kafka://" + d.options.Servers[0] }

// proof is what the Secrets hold: another one makes another client.
type proof struct {
	user, password string
	certificates   uint64
}

func (d *dialer) proof() (p proof, err error) {
	if d.rt.Config.Auth.Kind == contract.AuthBasic {
		user, err := d.rt.Secrets.Get(contract.FileUsername)
		if err != nil {
			return p, err
		}
		password, err := d.rt.Secrets.Get(contract.FilePassword)
		if err != nil {
			return p, err
		}
		p.user, p.password = string(user), string(password)
	}
	if d.tls != nil {
		_, p.certificates, err = d.tls.Config()
	}
	return p, err
}

// outdated tells whether the Secrets hold something else than a client was made with. What cannot be read changes nothing.
func (d *dialer) outdated(made proof) bool {
	p, err := d.proof()
	return err == nil && p != made
}

// client of the cluster, with what the Secrets hold now. It connects when it is used.
func (d *dialer) client(more ...kgo.Opt) (*kgo.Client, proof, error) {
	p, err := d.proof()
	if err != nil {
		return nil, p, err
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(d.options.Servers...), kgo.ClientID("metip-" + d.rt.Config.Connector.Namespace + "-" + d.rt.Config.Connector.Name),
		kgo.Dialer(d.dial), kgo.DisableClientMetrics(), kgo.WithHooks(&hooks{d}),
		kgo.RequestRetries(3), kgo.RetryTimeout(connectTimeout), kgo.RetryBackoffFn(func(n int) time.Duration { return min(100*time.Millisecond<<min(n, 5), 2*time.Second) }),
		kgo.RequestTimeoutOverhead(connectTimeout), kgo.BrokerMaxReadBytes(4 * maxFrame), kgo.BrokerMaxWriteBytes(2 * maxFrame),
		kgo.FetchMaxBytes(maxFetch), kgo.MetadataMinAge(250 * time.Millisecond), kgo.MetadataMaxAge(30 * time.Second), kgo.ConnIdleTimeout(5 * time.Minute),
	}
	if d.rt.Config.Auth.Kind == contract.AuthBasic {
		options = append(options, kgo.SASL(mechanism(d.options.SASL, p)))
	}
	c, err := kgo.NewClient(append(options, more...)...)
	if err != nil {
		return nil, p, fmt.Errorf("options of the client: %w", err)
	}
	return c, p, nil
}

func mechanism(name string, p proof) sasl.Mechanism {
	switch name {
	case saslPlain:
		return plain.Auth{User: p.user, Pass: p.password}.AsMechanism()
	case saslScram256:
		return scram.Auth{User: p.user, Pass: p.password}.AsSha256Mechanism()
	default:
		return scram.Auth{User: p.user, Pass: p.password}.AsSha512Mechanism()
	}
}

// dial a broker: one of the options, or one that those have named.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := d.rt.Dial(ctx, network, address)
	if err != nil || d.tls == nil {
		return raw, err
	}
	config, _, err := d.tls.Config()
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	config = config.Clone()
	if d.rt.Config.TLS == nil || d.rt.Config.TLS.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		var record tls.RecordHeaderError
		if errors.As(err, &record) {
			err = fmt.Errorf("%w (does the port speak without TLS? then write `encryption: Disabled`)", err)
		}
		return nil, err
	}
	return conn, nil
}

// hooks hear of connections.
type hooks struct{ d *dialer }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h *hooks) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.broken = err
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (h *hooks) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.broken == nil {
		h.d.broken = errors.New("the connection broke")
	}
}

// lost is why there is no connection; nil where there may be one.
func (d *dialer) lost() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

// probe the cluster, and that it has the topics.
func (d *dialer) probe(ctx context.Context, c *kgo.Client, topics ...string) error {
	inner, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{} // none
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, t)
	}
	answer, err := request.RequestWith(inner, c)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if cause := d.lost(); cause != nil && inner.Err() != nil {
			err = cause
		}
		return d.unavailable(ctx, err)
	}
	d.mu.Lock()
	d.broken = nil
	d.mu.Unlock()
	for _, t := range answer.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && t.Topic != nil {
			return d.topicError(*t.Topic, err)
		}
	}
	return nil
}

// topicError is what somebody has to see to.
func (d *dialer) topicError(topic string, err error) error {
	reason := contract.ReasonSystemError
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) {
		reason = contract.ReasonAuthenticationFailed
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: topic %s: %w", d.endpoint(), topic, err))
}

// unavailable is the state of a cluster that cannot be reached, or does not let us in.
func (d *dialer) unavailable(ctx context.Context, err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return err
	}
	reason := contract.ReasonConnectionFailed
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState),
		errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed),
		strings.Contains(err.Error(), "SASL"):
		reason = contract.ReasonAuthenticationFailed
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	case errors.As(err, &eof), errors.Is(err, io.EOF), strings.Contains(err.Error(), "connection reset"), strings.Contains(err.Error(), "broken pipe"):
		// In TLS 1.3 our certificate is refused after the handshake, and the client library does not read why.
		switch refused := d.refused(ctx); {
		case refused != nil:
			err, reason = refused, contract.ReasonCertificateInvalid
		case errors.Is(d.lost(), io.EOF) && d.rt.Config.Auth.Kind == contract.AuthBasic:
			reason = contract.ReasonAuthenticationFailed
			err = fmt.Errorf("the server breaks off at the login: user, password or sasl are wrong, or the port speaks another protocol: %w", err)
		}
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", d.endpoint(), err))
}

// refused is what a server says of our certificate; nil where it says nothing.
func (d *dialer) refused(ctx context.Context) error {
	if d.tls == nil || d.rt.Config.TLS == nil || !d.rt.Config.TLS.Certificate {
		return nil
	}
	conn, err := d.dial(ctx, "tcp", d.options.Servers[0])
	if err == nil {
		defer func() { _ = conn.Close() }()
		_ = conn.SetReadDeadline(time.Now().Add(alertWait))
		_, err = conn.Read(make([]byte, 1))
	}
	if tlsfiles.IsCertificateError(err) {
		return err
	}
	return nil
}
