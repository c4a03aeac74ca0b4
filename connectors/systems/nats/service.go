package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	connectTimeout = 3 * time.Second
	pingInterval   = 5 * time.Second
	maxReconnect   = 3 * time.Second
	// headerError of an answer is that of NATS' own service framework: the number says what kind of error.
	headerError = "Nats-Service-Error-Code"
)

// service asks a subject of a NATS server.
type service struct {
	rt          sdk.Runtime
	servers     string
	subject     *steps.Template
	inbox       string
	contentType string
	// tls is nil where the servers speak plain NATS.
	tls *tlsfiles.Client

	mu sync.Mutex
	nc *client.Conn
	// version of the Secrets that nc was made with.
	version uint64
	// lost is why nc is not connected.
	lost error
}

// NewService makes a service of the JSON of the API's NATSService.
func NewService(rt sdk.Runtime, options json.RawMessage) (sdk.Service, error) {
	o, hosts, subject, err := decodeServiceOptions(options)
	if err != nil {
		return nil, err
	}
	switch rt.Config.Auth.Kind {
	case contract.AuthNone, contract.AuthAnonymous, contract.AuthBasic, contract.AuthBearer:
	default:
		return nil, fmt.Errorf("auth %q is not one of anonymous, basic and bearer", rt.Config.Auth.Kind)
	}
	s := &service{rt: rt, servers: strings.Join(o.Servers, ","), subject: subject, inbox: o.InboxPrefix, contentType: o.ContentType}
	if strings.HasPrefix(o.Servers[0], "tls://") {
		s.tls = tlsfiles.NewClient(rt, hosts[0])
	}
	return s, nil
}

// Close the connection.
func (s *service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nc != nil {
		s.nc.Close()
	}
	return nil
}

// Check connects if need be, and asks the server for a sign of life. Whether anybody answers on the subject only calls can tell.
func (s *service) Check(ctx context.Context) error {
	nc, err := s.conn(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return s.unavailable(err)
	}
	return nil
}

// conn is the connection; a new one at first, and when the Secrets have changed.
func (s *service) conn(ctx context.Context) (*client.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := s.rt.Secrets.Version()
	if s.nc != nil && s.version == version {
		if s.nc.IsConnected() {
			return s.nc, nil
		}
		return nil, s.unavailable(s.lost)
	}
	nc, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if s.nc != nil {
		_ = s.nc.Drain() // calls that wait on it are still answered
	}
	s.nc, s.version, s.lost = nc, version, nil
	return nc, nil
}

func (s *service) connect(ctx context.Context) (*client.Conn, error) {
	options := []client.Option{
		client.Name("metip " + s.rt.Config.Connector.Namespace + "/" + s.rt.Config.Connector.Name),
		client.SetCustomDialer(dialer{context.WithoutCancel(ctx), s.rt}), client.IgnoreDiscoveredServers(),
		client.Timeout(connectTimeout), client.PingInterval(pingInterval), client.MaxPingsOutstanding(2),
		client.MaxReconnects(-1), client.IgnoreAuthErrorAbort(), client.ReconnectBufSize(-1),
		client.CustomReconnectDelay(func(attempts int) time.Duration { return min(50*time.Millisecond<<min(attempts, 7), maxReconnect) }),
		client.DisconnectErrHandler(s.disconnected), client.ReconnectErrHandler(s.disconnected),
		client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
			s.rt.Log.Warn("the NATS server reports an error", "error", err)
		}),
	}
	if s.inbox != "" {
		options = append(options, client.CustomInboxPrefix(s.inbox))
	}
	auth, err := s.authentication()
	if err != nil {
		return nil, err
	}
	options = append(options, auth...)
	if s.tls != nil {
		config, _, err := s.tls.Config()
		if err != nil {
			return nil, err
		}
		config = config.Clone()
		config.ServerName = serverName(s.rt.Config.TLS) // empty: each server's own name
		options = append(options, client.Secure(config))
	}
	nc, err := client.Connect(s.servers, options...)
	if err != nil {
		return nil, s.unavailable(err)
	}
	return nc, nil
}

func serverName(spec *contract.TLS) string {
	if spec == nil {
		return ""
	}
	return spec.ServerName
}

// authentication by what the Secret holds now; another value makes another connection.
func (s *service) authentication() ([]client.Option, error) {
	value := func(file string) (string, error) {
		b, err := s.rt.Secrets.Get(file)
		return strings.TrimSpace(string(b)), err
	}
	switch s.rt.Config.Auth.Kind {
	case contract.AuthBasic:
		user, err := value(contract.FileUsername)
		if err != nil {
			return nil, err
		}
		password, err := value(contract.FilePassword)
		return []client.Option{client.UserInfo(user, password)}, err
	case contract.AuthBearer:
		token, err := value(contract.FileToken)
		return []client.Option{client.Token(token)}, err
	}
	return nil, nil
}

func (s *service) disconnected(nc *client.Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nc == nil || s.nc == nc {
		s.lost = err
	}
}

// unavailable is the state of servers that cannot be reached, or do not let us in.
func (s *service) unavailable(err error) error {
	if err == nil {
		err = client.ErrDisconnected
	}
	reason := contract.ReasonConnectionFailed
	switch {
	case errors.Is(err, client.ErrAuthorization) || errors.Is(err, client.ErrAuthExpired) || errors.Is(err, client.ErrAuthRevoked) ||
		strings.Contains(strings.ToLower(err.Error()), "authorization violation"):
		reason = contract.ReasonAuthenticationFailed
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", s.servers, err))
}

// dialer refuses the addresses that no system has.
type dialer struct {
	ctx context.Context
	rt  sdk.Runtime
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, connectTimeout)
	defer cancel()
	return d.rt.Dial(ctx, network, address)
}

// Call implements sdk.Service.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	if err := r.Check(); err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	subject, err := s.subjectOf(r)
	if err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: fmt.Errorf("subject: %w", err)}
	}
	nc, err := s.conn(ctx)
	if err != nil {
		return nil, err
	}
	m := &client.Msg{Subject: subject, Header: headersOf(ctx, r), Data: r.Data}
	if limit := nc.MaxPayload(); int64(len(m.Data)) > limit {
		return nil, sdk.CallErrorf(http.StatusRequestEntityTooLarge, "the system takes bodies of up to %d bytes", limit)
	}
	got, err := nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, client.ErrNoResponders):
		return nil, sdk.CallErrorf(http.StatusServiceUnavailable, "nobody at the system answers on the subject")
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && !nc.IsConnected():
		return nil, s.unavailable(err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", s.servers, err)
	}
	return s.answer(ctx, r, got)
}

// subjectOf a request. A value that is inserted is one token: it cannot lead elsewhere.
func (s *service) subjectOf(r *sdk.Request) (string, error) {
	shown := *r
	shown.Headers = make(map[string]string, len(r.Headers)+8)
	for name, value := range r.Headers {
		shown.Headers[name] = value
	}
	shown.Expose()
	bad := ""
	subject, err := s.subject.Expand(&shown.Message, func(value string) string {
		if value == "" || strings.ContainsAny(value, ".*> \t\r\n") {
			bad = value
		}
		return value
	})
	switch {
	case err != nil:
		return "", err
	case bad != "" || !validSubject(subject):
		return "", errors.New("a value that is inserted is empty, or holds what one token of a subject cannot")
	}
	return subject, nil
}

func headersOf(ctx context.Context, r *sdk.Request) client.Header {
	h := make(client.Header, len(r.Header)+8)
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "nats-") {
			h[http.CanonicalHeaderKey(name)] = values
		}
	}
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{value}
		}
	}
	set("Content-Type", r.ContentType)
	set("Metip-Method", r.Method)
	set("Metip-Path", r.Path)
	set("Metip-Query", r.Query)
	set("Traceparent", r.Headers[contract.HeaderTraceParent])
	set("Tracestate", r.Headers[contract.HeaderTraceState])
	if deadline, ok := ctx.Deadline(); ok {
		set("Metip-Timeout-Ms", strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
	return h
}

func (s *service) answer(ctx context.Context, r *sdk.Request, got *client.Msg) (*sdk.Answer, error) {
	if len(got.Data) > contract.MaxMessageSize {
		return nil, sdk.CallErrorf(http.StatusBadGateway, "the system's answer is larger than %d bytes, which is the most that the bus carries", contract.MaxMessageSize)
	}
	if r.Reserve != nil {
		if err := r.Reserve(ctx, len(got.Data)); err != nil {
			return nil, err
		}
	}
	a := &sdk.Answer{Status: http.StatusOK, Header: make(map[string][]string, len(got.Header))}
	for name, values := range got.Header {
		switch lower := strings.ToLower(name); {
		case lower == "content-type":
			a.ContentType = values[0]
		case strings.EqualFold(name, headerError):
			status, err := strconv.Atoi(values[0])
			if err != nil || status < 400 || status > 599 {
				status = http.StatusInternalServerError
			}
			a.Status = status
		default:
			a.Header[lower] = values
		}
	}
	if a.ContentType == "" {
		a.ContentType = s.contentType
	}
	a.Format, a.Data = sdk.FormatOf(a.ContentType), got.Data
	return a, nil
}
