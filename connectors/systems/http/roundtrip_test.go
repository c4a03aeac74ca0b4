package http

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"
)

// late is a transport that reads, while it closes the connection, what the system says to that.
type late struct{ closed bool }

func (l *late) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return &http.Response{StatusCode: http.StatusOK, Body: l}, nil
}

func (l *late) Read([]byte) (int, error) { return 0, errors.New("closed") }

func (l *late) Close() error {
	l.closed = true
	return nil
}

// TestAnAnswerAfterTheTimeIsUp: a system that sees its caller go, and ends with an implicit 200, has not done the work.
func TestAnAnswerAfterTheTimeIsUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://court.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &late{}
	response, err := roundTrip(transport, request)
	if err == nil {
		_ = response.Body.Close()
		t.Fatalf("taken for an answer: %d", response.StatusCode)
	}
	if !errors.Is(err, context.DeadlineExceeded) || !transport.closed {
		t.Error(err, "closed:", transport.closed)
	}
}
