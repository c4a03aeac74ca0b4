package http

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// smallAnswer is what is read of an answer of unknown length before room for the largest is asked for.
const smallAnswer = 64 << 10

// service passes calls on to an HTTP system: method, path, query, headers and body, and the answer back.
type service struct {
	// pool of connections and credentials, as a sink has them.
	pool    *sink
	headers http.Header
	// health is asked by Check; nil where connecting is enough.
	health *url.URL
}

// NewService makes a service of the JSON of the API's HTTPService.
func NewService(rt sdk.Runtime, options json.RawMessage) (sdk.Service, error) {
	o, base, err := decodeServiceOptions(options)
	if err != nil {
		return nil, err
	}
	pool, err := newSink(rt, base, nil)
	if err != nil {
		return nil, err
	}
	s := &service{pool: pool, headers: http.Header{}}
	for name, value := range o.Headers {
		s.headers[http.CanonicalHeaderKey(name)] = []string{value}
	}
	if o.HealthPath != "" {
		if s.health, err = url.Parse(base.Scheme + "://" + base.Host + o.HealthPath); err != nil || s.health.Host != base.Host {
			return nil, errors.New("healthPath makes no valid URL")
		}
	}
	return s, nil
}

// Close lets idle connections go.
func (s *service) Close() error { return s.pool.Close() }

// Check connects, and asks for healthPath if there is one.
func (s *service) Check(ctx context.Context) error {
	if s.health == nil {
		return s.pool.Check(ctx)
	}
	credentials := s.pool.credentials()
	if credentials.err != nil {
		return credentials.err
	}
	transport, err := s.pool.client()
	if err != nil {
		return err
	}
	request := newRequest(http.MethodGet, s.health, http.Header{"User-Agent": userAgent})
	s.authenticate(request, credentials, nil)
	response, err := s.send(ctx, transport, request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer := readAnswer(response)
	if class := response.StatusCode / 100; class == 2 || class == 3 {
		return nil
	}
	reason := contract.ReasonSystemError
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		reason = contract.ReasonAuthenticationFailed
	}
	return sdk.Unavailable(reason, fmt.Errorf("GET %s: %s%s", s.health, statusText(response.StatusCode), excerpt(answer, credentials.hidden)))
}

// Call implements sdk.Service.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	target, err := s.target(r)
	if err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	credentials := s.pool.credentials()
	if credentials.err != nil {
		return nil, credentials.err
	}
	transport, err := s.pool.client()
	if err != nil {
		return nil, err
	}
	response, err := s.send(ctx, transport, s.request(ctx, r, target, credentials))
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if refused := s.refused(r, response, credentials); refused != nil {
		return nil, refused
	}
	body, err := s.read(ctx, r, response)
	if err != nil {
		return nil, err
	}
	a := &sdk.Answer{Status: response.StatusCode, Header: answerHeaders(response.Header), CacheFor: cacheFor(response.Header)}
	a.ContentType = response.Header.Get("Content-Type")
	a.Format, a.Data = sdk.FormatOf(a.ContentType), body
	if r.Method == http.MethodHead && response.ContentLength >= 0 {
		// Not that of the body that is carried: only the answer to HEAD has one of its own.
		a.Header[contentLength] = []string{strconv.FormatInt(response.ContentLength, 10)}
	}
	return a, nil
}

// target of a request: its path and query below the url.
func (s *service) target(r *sdk.Request) (*url.URL, error) {
	// The engine has checked it; what a request may reach is too much to rely on that.
	if err := r.Check(); err != nil {
		return nil, err
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return nil, fmt.Errorf("the method %s is not carried on", r.Method)
	}
	full := s.pool.base.String()
	if r.Path != "" {
		full = prefix(s.pool.base) + r.Path
	}
	if r.Query != "" {
		full += "?" + r.Query
	}
	u, err := url.Parse(full)
	if err != nil || u.Host != s.pool.base.Host || u.Scheme != s.pool.base.Scheme || u.User != nil || u.Fragment != "" {
		return nil, errors.New("path and query make no valid URL")
	}
	return u, nil
}

func newRequest(method string, u *url.URL, header http.Header) *http.Request {
	return &http.Request{Method: method, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}

func (s *service) request(ctx context.Context, r *sdk.Request, u *url.URL, credentials *sinkCredentials) *http.Request {
	header := make(http.Header, len(r.Header)+8)
	setHeaders(header, r.Header)
	if header["User-Agent"] == nil {
		header["User-Agent"] = userAgent
	}
	if r.ContentType != "" && len(r.Data) > 0 {
		header["Content-Type"] = []string{r.ContentType}
	}
	for _, name := range []string{contract.HeaderTraceParent, contract.HeaderTraceState} {
		if value := r.Headers[name]; value != "" && checkAttribute(value) == nil {
			header[http.CanonicalHeaderKey(name)] = []string{value}
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		header[headerTimeoutMS] = []string{strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)}
	}
	for name, value := range s.headers {
		header[name] = value
	}
	request := newRequest(r.Method, u, header)
	s.authenticate(request, credentials, r.Data)
	if data := r.Data; len(data) > 0 {
		request.ContentLength = int64(len(data))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		request.Body, _ = request.GetBody()
	}
	return request
}

// authenticate with the Connector's own credentials, and nobody else's.
func (s *service) authenticate(request *http.Request, credentials *sinkCredentials, data []byte) {
	delete(request.Header, "Authorization")
	if credentials.authorization != "" {
		request.Header["Authorization"] = []string{credentials.authorization}
	}
	if credentials.key != nil {
		name := s.pool.rt.Config.Auth.Header
		if name == "" {
			name = defaultSignatureHeader
		}
		request.Header[http.CanonicalHeaderKey(name)] = []string{"sha256=" + hex.EncodeToString(signature(credentials.key, data))}
	}
}

// send a request. An error is Unavailable when the system has not seen the request.
func (s *service) send(ctx context.Context, transport *http.Transport, request *http.Request) (*http.Response, error) {
	var connected atomic.Bool
	request = request.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}))
	response, err := roundTrip(transport, request)
	if err == nil {
		return response, nil
	}
	o := operation{sink: s.pool, endpoint: request.Method + " " + s.pool.base.String()}
	broken := o.broken(ctx, err, connected.Load())
	var dial *net.OpError
	var unavailable *sdk.UnavailableError
	if connected.Load() && !(errors.As(err, &dial) && dial.Op == "dial") && errors.As(broken, &unavailable) && unavailable.Reason == contract.ReasonConnectionFailed {
		return nil, unavailable.Err // it was sent, and may have been done
	}
	return nil, broken
}

// refused says that the system does not accept the Connector's credentials, which is not the caller's business. Without credentials, 401
// is an answer like others.
func (s *service) refused(r *sdk.Request, response *http.Response, credentials *sinkCredentials) error {
	own := credentials.authorization != "" || credentials.key != nil
	if response.StatusCode != http.StatusProxyAuthRequired && (response.StatusCode != http.StatusUnauthorized || !own) {
		return nil
	}
	answer := readAnswer(response)
	return sdk.Unavailable(contract.ReasonAuthenticationFailed, fmt.Errorf("%s %s: %s%s", r.Method, s.pool.base, statusText(response.StatusCode), excerpt(answer, credentials.hidden)))
}

// read the body of an answer, within what an answer may hold and what there is room for.
func (s *service) read(ctx context.Context, r *sdk.Request, response *http.Response) ([]byte, error) {
	tooLarge := func() error {
		return sdk.CallErrorf(http.StatusBadGateway, "the system's answer is larger than %d bytes, which is the most that the bus carries", contract.MaxMessageSize)
	}
	reserve := func(n int) error {
		if r.Reserve == nil {
			return nil
		}
		return r.Reserve(ctx, n)
	}
	broke := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: the answer broke off: %w", r.Method, s.pool.base, err)
	}
	size := response.ContentLength
	switch {
	case r.Method == http.MethodHead || size == 0:
		return nil, nil
	case size > contract.MaxMessageSize:
		return nil, tooLarge()
	case size > 0:
		if err := reserve(int(size)); err != nil {
			return nil, err
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(response.Body, body); err != nil {
			return nil, broke(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, smallAnswer))
	if err != nil {
		return nil, broke(err)
	}
	if len(body) < smallAnswer {
		return body, nil
	}
	if err := reserve(contract.MaxMessageSize); err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(response.Body, contract.MaxMessageSize-smallAnswer+1))
	if err != nil {
		return nil, broke(err)
	}
	if body = append(body, rest...); len(body) > contract.MaxMessageSize {
		return nil, tooLarge()
	}
	return body, nil
}

// cacheFor is how long an answer may be kept, as far as the system says so: 0 for as long as one likes, negative for not at all. An
// answer that depends on more of the request than a cache looks at is not kept.
func cacheFor(header http.Header) time.Duration {
	const never = -1
	if len(header["Set-Cookie"]) > 0 {
		return never
	}
	for _, value := range header["Vary"] {
		for name := range strings.SplitSeq(value, ",") {
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "", "accept", "accept-language", "accept-encoding", "content-type":
			default:
				return never
			}
		}
	}
	limit := time.Duration(0)
	for _, value := range header["Cache-Control"] {
		for directive := range strings.SplitSeq(value, ",") {
			name, argument, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
			switch name {
			case "no-store", "no-cache", "private":
				return never
			case "max-age", "s-maxage":
				seconds, err := strconv.Atoi(strings.Trim(argument, `"`))
				if err != nil || seconds <= 0 {
					return never
				}
				if age := time.Duration(min(seconds, 1<<30)) * time.Second; limit == 0 || age < limit {
					limit = age
				}
			}
		}
	}
	return limit
}
