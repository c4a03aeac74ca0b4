package flow

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Asker sends requests that are answered over the bus.
type Asker struct {
	HTTP *http.Client
	// URL that every path is added to, and the bearer token.
	URL, Token string
}

// Answer of the bus.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Took   time.Duration
}

// Ask and wait for the answer. header may be nil.
func (a *Asker) Ask(ctx context.Context, method, path string, header http.Header, body []byte) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.URL+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+a.Token)
	for name, values := range header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	begun := time.Now()
	response, err := a.HTTP.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("the answer to %s %s: %w", method, path, err)
	}
	return Answer{response.StatusCode, response.Header, text, time.Since(begun)}, nil
}
