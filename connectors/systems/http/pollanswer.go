package http

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// maxPage is the largest answer that is read: a message of the largest size, and what is around it.
const maxPage = contract.MaxMessageSize + 64<<10

// accepts what a source of the format asks for.
var accepts = map[string]string{
	sdk.FormatJSON: "application/json, application/*+json;q=0.9, */*;q=0.1", sdk.FormatXML: "application/xml, text/xml;q=0.9, */*;q=0.1",
	sdk.FormatText: "text/plain, */*;q=0.1", sdk.FormatBinary: "*/*",
}

// pollValidator of an answer, by which the system knows it again.
type pollValidator struct{ address, etag, modified string }

// pollAnswer of the system.
type pollAnswer struct {
	address     *url.URL
	contentType string
	body        []byte
	validator   pollValidator
	// next page, as the header Link says; nil for none.
	next *url.URL
}

// ask the system; the answer is nil when nothing has changed since p.seen.
func (p *poll) ask(ctx context.Context, address *url.URL) (*pollAnswer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("no answer within %s", p.timeout))
	defer cancel()
	credentials := p.client.pool.credentials()
	if credentials.err != nil {
		return nil, credentials.err
	}
	transport, err := p.client.pool.client()
	if err != nil {
		return nil, err
	}
	header := http.Header{"User-Agent": userAgent, "Accept": {accepts[p.rt.Config.Source.Format]}}
	conditional := p.seen.address == address.String()
	if conditional && p.seen.etag != "" {
		header["If-None-Match"] = []string{p.seen.etag}
	}
	if conditional && p.seen.modified != "" {
		header["If-Modified-Since"] = []string{p.seen.modified}
	}
	for name, value := range p.client.headers {
		header[name] = value
	}
	request := newRequest(http.MethodGet, address, header)
	p.client.authenticate(request, credentials, nil)
	response, err := p.get(ctx, transport, request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	switch {
	case response.StatusCode == http.StatusNotModified && conditional:
		return nil, nil
	case response.StatusCode == http.StatusOK || response.StatusCode == http.StatusNoContent:
	default:
		return nil, p.refused(response, credentials)
	}
	a := &pollAnswer{address: address, contentType: response.Header.Get("Content-Type"), validator: pollValidator{
		address: address.String(), etag: response.Header.Get("Etag"), modified: response.Header.Get("Last-Modified"),
	}}
	if a.body, err = readPage(response); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, connectError(p.client.pool.base.String(), fmt.Errorf("the answer broke off: %w", err))
	}
	if len(a.body) > maxPage {
		return nil, p.systemErrorf("the answer is larger than %d bytes: ask for less at a time, by a parameter of the url such as limit", maxPage)
	}
	if link := nextLink(response.Header["Link"]); link != "" {
		if a.next, err = p.resolve(address, link); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// readPage reads an answer, or so much of it that it is too large.
func readPage(response *http.Response) ([]byte, error) {
	if size := response.ContentLength; size >= 0 && size <= maxPage {
		body := make([]byte, size)
		_, err := io.ReadFull(response.Body, body)
		return body, err
	}
	return io.ReadAll(io.LimitReader(response.Body, maxPage+1))
}

// get sends a request.
func (p *poll) get(ctx context.Context, transport *http.Transport, request *http.Request) (*http.Response, error) {
	var connected atomic.Bool
	request = request.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}))
	response, err := roundTrip(transport, request)
	if err == nil {
		return response, nil
	}
	o := operation{sink: p.client.pool, endpoint: p.client.pool.base.String()}
	err = o.broken(ctx, err, connected.Load())
	var unavailable *sdk.UnavailableError
	if errors.As(err, &unavailable) {
		return nil, err
	}
	return nil, sdk.Unavailable(contract.ReasonConnectionFailed, err)
}

// refused is why there are no items, or no new answer.
func (p *poll) refused(response *http.Response, credentials *sinkCredentials) error {
	status := response.StatusCode
	reason, advice := contract.ReasonSystemError, ""
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired:
		reason = contract.ReasonAuthenticationFailed
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		reason = contract.ReasonConnectionFailed
	case status/100 == 3:
		advice = " (redirects are not followed: write the new address into url)"
	}
	answer := readAnswer(response)
	err := sdk.Unavailable(reason, fmt.Errorf("GET %s: %s%s%s", p.client.pool.base, statusText(status), excerpt(answer, credentials.hidden), advice))
	if after := retryAfter(response.Header.Get("Retry-After"), time.Now()); after > 0 {
		return &sdk.RetryAfterError{Err: err, After: after}
	}
	return err
}

// resolve an address that the system has named. Credentials go to the system of the url only.
func (p *poll) resolve(from *url.URL, text string) (*url.URL, error) {
	u, err := from.Parse(text)
	if err != nil || u.Scheme != p.url.Scheme || !strings.EqualFold(u.Host, p.url.Host) || u.User != nil || len(text) > 8<<10 {
		return nil, p.systemErrorf("the next page, %.200q, is not one of the same scheme, host and port", text)
	}
	u.Fragment, u.Host = "", p.url.Host
	return u, nil
}

// nextLink is the target of the link with the relation next (RFC 8288); empty for none.
func nextLink(values []string) string {
	for _, value := range values {
		for value != "" {
			begin := strings.IndexByte(value, '<')
			if begin < 0 {
				break
			}
			end := strings.IndexByte(value[begin:], '>')
			if end < 0 {
				break
			}
			target := value[begin+1 : begin+end]
			value = value[begin+end+1:]
			var parameters string
			parameters, value = linkParameters(value)
			if hasRelation(parameters, "next") {
				return target
			}
		}
	}
	return ""
}

// linkParameters cuts the parameters of a link off: they end at a comma that is not within quotes.
func linkParameters(text string) (parameters, rest string) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}

// hasRelation tells whether the first rel among the parameters of a link names a relation.
func hasRelation(parameters, relation string) bool {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		value = strings.TrimSpace(value)
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		for word := range strings.FieldsSeq(value) {
			if strings.EqualFold(word, relation) {
				return true
			}
		}
		return false
	}
	return false
}
