package custom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/oneline"
)

const (
	// checkTimeout of the container's answer to whether its system works.
	checkTimeout = 10 * time.Second
	// maxProblem that is read of an answer, and maxDetail that is repeated of it.
	maxProblem = 64 << 10
	maxDetail  = 300
)

// reasons that a container may give; another one is SystemError.
var reasons = []string{
	contract.ReasonConnectionFailed, contract.ReasonAuthenticationFailed, contract.ReasonCertificateInvalid, contract.ReasonCredentialsMissing, contract.ReasonSystemError,
}

// container is somebody's own program at a loopback address.
type container struct {
	rt      sdk.Runtime
	address string
	client  *http.Transport
}

func newContainer(rt sdk.Runtime, address string) *container {
	c := &container{rt: rt, address: address}
	c.client = &http.Transport{
		DialContext: c.dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxProblem, DisableCompression: true,
	}
	return c
}

// dial the container and nothing else. The engine's own Dial refuses the loopback, where no system is.
func (c *container) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", c.address)
}

func (c *container) url(path string) *url.URL {
	return &url.URL{Scheme: "http", Host: c.address, Path: path}
}

// check asks the container whether its system works. Before that it looks for the credentials, whose Secret the container cannot name.
func (c *container) check(ctx context.Context) error {
	if err := c.secrets(); err != nil {
		return err
	}
	inner, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(inner, http.MethodGet, c.url(pathCheck).String(), nil)
	if err != nil {
		return err
	}
	answer, err := c.client.RoundTrip(r)
	if err != nil {
		return c.silent(ctx, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxProblem))
	if err != nil {
		return c.silent(ctx, err)
	}
	if answer.StatusCode/100 == 2 {
		return nil
	}
	reason, err := c.explain(answer.StatusCode, string(body))
	if reason == "" {
		reason = contract.ReasonSystemError
	}
	return sdk.Unavailable(reason, err)
}

// silent is a container that does not answer.
func (c *container) silent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		err = errors.New("nothing listens there (does it start, or has it crashed?)")
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer to GET %s in %s", pathCheck, checkTimeout)
	}
	return sdk.Unavailable(contract.ReasonConnectionFailed, fmt.Errorf("the custom container does not answer at %s: %w", c.address, err))
}

// secrets that the container is to prove itself with.
func (c *container) secrets() error {
	for _, file := range map[contract.AuthKind][]string{
		contract.AuthBasic: {contract.FileUsername, contract.FilePassword}, contract.AuthBearer: {contract.FileToken},
		contract.AuthHMAC: {contract.FileHMACKey}, contract.AuthSSH: {contract.FileSSHKey},
	}[c.rt.Config.Auth.Kind] {
		if _, err := c.rt.Secrets.Get(file); err != nil {
			return err
		}
	}
	return nil
}

// problem is an answer as RFC 9457 has it, with a reason of a state.
type problem struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// explain an answer that is not 2xx: by its problem, or else by its text.
func (c *container) explain(status int, answer string) (reason string, err error) {
	var p problem
	if json.Unmarshal([]byte(answer), &p) != nil || p.Detail == "" {
		p.Detail = answer
	}
	if reason = p.Reason; reason != "" && !slices.Contains(reasons, reason) {
		reason = contract.ReasonSystemError
	}
	text := oneline.Excerpt(c.redact(p.Detail), maxDetail)
	if text == "" {
		text = "it does not say why"
	}
	return reason, fmt.Errorf("the custom container answers %d: %s", status, text)
}

// redact what the container should not have repeated.
func (c *container) redact(text string) string {
	for _, file := range []string{contract.FilePassword, contract.FileToken, contract.FileHMACKey} {
		if value, err := c.rt.Secrets.Get(file); err == nil && len(value) > 0 {
			text = strings.ReplaceAll(text, string(value), "***")
		}
	}
	return text
}

// runtime of package http beside the container: the credentials are the container's, and the listener is the pod's own.
func (c *container) runtime(listen string) sdk.Runtime {
	rt := c.rt
	config := *rt.Config
	config.Auth, config.TLS = contract.Auth{Kind: contract.AuthAnonymous}, nil
	rt.Config = &config
	rt.Dial = c.dial
	rt.Listen = func(ctx context.Context) (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	}
	return rt
}
