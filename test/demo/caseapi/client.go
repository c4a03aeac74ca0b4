package caseapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Client of a case API.
type Client struct {
	// URL without a path, and the bearer token.
	URL, Token string
	HTTP       *http.Client
}

// Cases that the API holds, without their bodies.
func (c *Client) Cases(ctx context.Context) (cases []Case, err error) {
	return cases, c.call(ctx, http.MethodGet, "/ids", nil, &cases)
}

// Case by its id.
func (c *Client) Case(ctx context.Context, id string) (found Case, err error) {
	return found, c.call(ctx, http.MethodGet, "/cases/"+url.PathEscape(id), nil, &found)
}

// Stats of the API.
func (c *Client) Stats(ctx context.Context) (stats Stats, err error) {
	return stats, c.call(ctx, http.MethodGet, "/stats", nil, &stats)
}

// SetMode tells the API how to behave.
func (c *Client) SetMode(ctx context.Context, mode Mode) error {
	return c.call(ctx, http.MethodPost, "/faults", map[string]Mode{"mode": mode}, nil)
}

// Reset makes the API forget everything.
func (c *Client) Reset(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/reset", nil, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.URL+path, &body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	response, err := c.HTTP.Do(request)
	if err != nil {
		return fmt.Errorf("case API: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1024))
		return fmt.Errorf("case API: %s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(text))
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}
