package http

import (
	"context"
	"net/http"
)

// roundTrip makes one attempt at a request. What comes when the request's time is up is no answer: the connection is being closed, a system that
// sees this may end its work half done and say 200 nevertheless, and over TLS that may arrive before the connection is gone.
func roundTrip(transport http.RoundTripper, request *http.Request) (*http.Response, error) {
	response, err := transport.RoundTrip(request)
	if ctx := request.Context(); err == nil && ctx.Err() != nil {
		_ = response.Body.Close()
		return nil, context.Cause(ctx)
	}
	return response, err
}
