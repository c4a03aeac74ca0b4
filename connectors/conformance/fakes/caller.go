package fakes

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/metip/metip/connectors/sdk"
)

// Caller answers requests as a test says, by default 200 without a body.
type Caller struct {
	mu       sync.Mutex
	requests []*sdk.Request
	respond  func(context.Context, *sdk.Request) *sdk.Answer
}

// Respond with what f returns from now on.
func (c *Caller) Respond(f func(context.Context, *sdk.Request) *sdk.Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.respond = f
}

// Requests so far.
func (c *Caller) Requests() []*sdk.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*sdk.Request(nil), c.requests...)
}

// Call implements sdk.Caller.
func (c *Caller) Call(ctx context.Context, r *sdk.Request) *sdk.Answer {
	c.mu.Lock()
	c.requests = append(c.requests, r)
	respond := c.respond
	c.mu.Unlock()
	if respond == nil {
		return &sdk.Answer{Status: http.StatusOK}
	}
	return respond(ctx, r)
}

// MaxTimeout implements sdk.Caller.
func (c *Caller) MaxTimeout() time.Duration { return time.Minute }
