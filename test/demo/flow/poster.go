package flow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/metip/metip/test/demo/arrests"
)

// Poster posts records as the custody system does. A record counts as sent when it was answered 202; until then it is posted again,
// under the same Idempotency-Key.
type Poster struct {
	HTTP *http.Client
	// URL with the path, and the bearer token.
	URL, Token string
	// Workers that post at a time; at least 1.
	Workers int
	// PerSecond bounds the records a second; 0 means as fast as can be.
	PerSecond float64
	// Stamp is added to each Idempotency-Key, so that one run's keys are not another's.
	Stamp string
	// RepeatEvery so many records, one is posted a second time after its 202, as a client does that did not see the answer; 0: never.
	RepeatEvery int

	// Accepted counts records that were answered 202, while Run runs.
	Accepted atomic.Int64
	// Retried counts posts that were not answered 202 and were made again, Repeated those made again after a 202.
	Retried, Repeated atomic.Int64
}

// Sent is a record that the bus has accepted.
type Sent struct {
	*arrests.Line
	// At is when it was posted first, and Accepted when the 202 came.
	At, Accepted time.Time
}

const (
	firstPause = 50 * time.Millisecond
	longPause  = time.Second
)

// Run posts all records, and returns those that were accepted, in any order. The error is the context's, or a refusal that no repeat
// can mend (4xx but 429).
func (p *Poster) Run(ctx context.Context, lines []arrests.Line) ([]Sent, error) {
	limit := rate.Inf
	if p.PerSecond > 0 {
		limit = rate.Limit(p.PerSecond)
	}
	limiter := rate.NewLimiter(limit, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, p.Workers))
	var mu sync.Mutex
	sent := make([]Sent, 0, len(lines))
	for i := range lines {
		if err := limiter.Wait(ctx); err != nil {
			break
		}
		group.Go(func() error {
			s, err := p.send(ctx, &lines[i], p.RepeatEvery > 0 && i%p.RepeatEvery == 0)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, s)
			return nil
		})
	}
	err := group.Wait()
	if err == nil && len(sent) < len(lines) {
		err = ctx.Err()
	}
	return sent, err
}

func (p *Poster) send(ctx context.Context, line *arrests.Line, repeat bool) (Sent, error) {
	s := Sent{Line: line, At: time.Now()}
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		status, text, err := p.post(ctx, line)
		if err == nil && status == http.StatusAccepted {
			break
		}
		if err == nil && status >= 400 && status < 500 && status != http.StatusTooManyRequests {
			return s, fmt.Errorf("record %s was refused: %d %s", line.ArrestID, status, text)
		}
		p.Retried.Add(1)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return s, fmt.Errorf("record %s: %w (last answer: %d %s)", line.ArrestID, errors.Join(ctx.Err(), err), status, text)
		}
	}
	s.Accepted = time.Now()
	p.Accepted.Add(1)
	if repeat {
		p.Repeated.Add(1)
		if _, _, err := p.post(ctx, line); err != nil && ctx.Err() != nil {
			return s, ctx.Err()
		}
	}
	return s, nil
}

func (p *Poster) post(ctx context.Context, line *arrests.Line) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(line.Body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+p.Token)
	request.Header.Set("Idempotency-Key", p.Key(line))
	response, err := p.HTTP.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	return response.StatusCode, string(bytes.TrimSpace(text)), err
}

// Key is the Idempotency-Key of a record.
func (p *Poster) Key(line *arrests.Line) string { return line.ArrestID + p.Stamp }
