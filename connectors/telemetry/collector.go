package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// collector takes one signal, spans or metrics, as OTLP's JSON (https://opentelemetry.io/docs/specs/otlp/, OTLP/HTTP).
type collector struct {
	signal, url string
	client      *http.Client
	log         *slog.Logger
	// failing keeps the log to one line each time that the collector goes or comes back.
	failing atomic.Bool
}

// collectorOf a signal; path is where the collector takes it.
func collectorOf(o *Options, signal, path string) (*collector, error) {
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
		return nil, fmt.Errorf("telemetry: the collector's address %q is no http:// or https:// URL", o.Endpoint)
	}
	transport := &http.Transport{DialContext: o.Dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: exportTimeout}
	return &collector{
		signal: signal, url: strings.TrimSuffix(endpoint.String(), "/") + path, log: o.Log,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// send a request, and tell whether the collector took it.
func (c *collector) send(ctx context.Context, request any) bool {
	err := c.post(ctx, request)
	if was := c.failing.Swap(err != nil); was != (err != nil) {
		if err != nil {
			c.log.Warn("the collector does not take "+c.signal, "error", err)
		} else {
			c.log.Info("the collector takes " + c.signal + " again")
		}
	}
	return err == nil
}

func (c *collector) post(ctx context.Context, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", c.url, answer.Status)
	}
	return nil
}
