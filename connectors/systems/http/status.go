package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	// maxAnswer that is read; a connection whose answer is longer is not used again.
	maxAnswer = 64 << 10
	// maxExcerpt of an answer, in an error.
	maxExcerpt = 160
	// maxRetryAfter that is honoured.
	maxRetryAfter = 10 * time.Minute
	// probeTimeout of finding out why a connection broke.
	probeTimeout = 2 * time.Second
)

// judge says what an answer means for the message.
func (o *operation) judge(response *http.Response, answer string, credentials *sinkCredentials) error {
	status := response.StatusCode
	if status/100 == 2 {
		return nil
	}
	err := fmt.Errorf("%s: %s%s", o.endpoint, statusText(status), excerpt(answer, credentials.hidden))
	refused, failed := contract.ReasonAuthenticationFailed, contract.ReasonConnectionFailed
	if o.sink.explain != nil {
		var reason string
		if reason, err = o.sink.explain(status, answer); reason != "" {
			refused, failed = reason, reason
		}
	}
	switch {
	case slices.Contains(o.rejectOn, status):
		return sdk.Permanent(err)
	case slices.Contains(o.retryOn, status):
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		err = sdk.Unavailable(refused, err)
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		err = sdk.Unavailable(failed, err)
	case status == http.StatusProxyAuthRequired || status == http.StatusRequestTimeout || status == http.StatusTooEarly ||
		status == http.StatusTooManyRequests || status >= 500:
	case status/100 == 3:
		return sdk.Permanent(fmt.Errorf("%w (redirects are not followed: write the new address into url)", err))
	default:
		return sdk.Permanent(err)
	}
	if after := retryAfter(response.Header.Get("Retry-After"), time.Now()); after > 0 {
		return &sdk.RetryAfterError{Err: err, After: after}
	}
	return err
}

// broken says what it means that there was no answer: the system cannot be reached, or breaks off. That costs the message no attempt,
// unless others pass meanwhile (the engine sees to that): then it may be this message that makes the system break off. An answer that
// does not come in time is the engine's to judge.
func (o *operation) broken(ctx context.Context, err error, connected bool) error {
	var dial *net.OpError
	switch ended := ctx.Err(); {
	case errors.As(err, &dial) && dial.Op == "dial" && ended == nil:
		return connectError(o.endpoint, err) // also after an old connection has turned out to be closed
	case errors.Is(ended, context.DeadlineExceeded) && !connected:
		return connectError(o.endpoint, errors.New("no connection in time"))
	case errors.Is(ended, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time: %w", o.endpoint, ended)
	case ended != nil:
		return fmt.Errorf("%s: %w", o.endpoint, ended)
	case connected && !tlsfiles.IsCertificateError(err):
		// In TLS 1.3 our certificate is refused after the handshake, and HTTP/2 says no more than that the connection broke.
		if o.sink.showsCertificate() {
			probe, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			if refused := o.sink.probe(probe); tlsfiles.IsCertificateError(refused) {
				return refused
			}
		}
		return connectError(o.endpoint, fmt.Errorf("the connection broke before the answer: %w", err))
	default:
		return connectError(o.endpoint, err)
	}
}

// readAnswer reads the body to its end, so that the connection can be used again, as far as maxAnswer. It returns what errors quote.
func readAnswer(response *http.Response) string {
	if response.StatusCode/100 == 2 {
		if response.ContentLength == 0 {
			return ""
		}
		_, _ = io.CopyN(io.Discard, response.Body, maxAnswer)
		return ""
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return string(body)
}

// excerpt is the beginning of an answer on one line, printable, and without our own credentials.
func excerpt(answer string, hidden []string) string {
	for _, secret := range hidden {
		answer = strings.ReplaceAll(answer, secret, "***")
	}
	if answer = oneline.Excerpt(answer, maxExcerpt); answer == "" {
		return ""
	}
	return ": " + answer
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return strconv.Itoa(status) + " " + text
	}
	return "status " + strconv.Itoa(status)
}

// retryAfter reads seconds or a date. What is absent, malformed or past is zero.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	var after time.Duration
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		after = at.Sub(now)
	}
	return min(max(after, 0), maxRetryAfter)
}
