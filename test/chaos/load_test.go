package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the client does: so many messages a second, by so many that post at the same time, each message until it is acknowledged.
const (
	rate    = 120
	posters = 48
	// postTimeout is after how long the client posts again.
	postTimeout = 4 * time.Second
)

// posted is what the client knows of a message.
type posted struct {
	record
	first, acknowledged time.Time
	attempts            int
}

func (p *posted) waited() time.Duration { return p.acknowledged.Sub(p.first) }

// load posts messages with ids that stay the same however often they are repeated.
type load struct {
	url    string
	client *http.Client
	dice   *dice
	stop   context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	messages map[string]*posted
	worst    *posted
	refused  map[int]int
}

func startLoad(t *testing.T, w *world) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{
		url: "http://" + w.listener + "/cases", dice: w.dice, stop: stop, done: make(chan struct{}), messages: map[string]*posted{}, refused: map[int]int{},
		client: &http.Client{Timeout: postTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: posters}},
	}
	jobs := make(chan record)
	go func() {
		defer close(jobs)
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			select {
			case jobs <- l.record(n):
			case <-ctx.Done():
				return
			}
		}
	}()
	var all sync.WaitGroup
	for range posters {
		all.Go(func() {
			for r := range jobs {
				l.post(t.Context(), r)
			}
		})
	}
	go func() {
		all.Wait()
		close(l.done)
	}()
	t.Cleanup(func() { stop(); <-l.done })
	return l
}

// record n: every fifth is filtered out, every fiftieth is rejected, some are large.
func (l *load) record(n int) record {
	size := 200 + l.dice.below(1500)
	if n%150 == 149 {
		size = 50_000 + l.dice.below(400_000)
	}
	return record{ID: fmt.Sprintf("m%06d", n), Keep: n%5 != 0, Reject: n%50 == 7, Pad: strings.Repeat("x", size)}
}

// post a message until it is acknowledged.
func (l *load) post(ctx context.Context, r record) {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	p := &posted{record: r, first: time.Now()}
	p.Pad = ""
	l.mu.Lock()
	l.messages[r.ID] = p
	l.mu.Unlock()
	for ctx.Err() == nil {
		status := l.try(ctx, r.ID, body)
		l.mu.Lock()
		p.attempts++
		if status == http.StatusAccepted {
			p.acknowledged = time.Now()
			if l.worst == nil || p.waited() > l.worst.waited() {
				l.worst = p
			}
			l.mu.Unlock()
			return
		}
		l.refused[status]++
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(l.dice.between(20*time.Millisecond, 250*time.Millisecond)):
		}
	}
}

// try once. The status is 0 when there was no answer.
func (l *load) try(ctx context.Context, id string, body []byte) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", id)
	response, err := l.client.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// end posting, once what has been begun is acknowledged.
func (l *load) end() {
	l.stop()
	<-l.done
}

// acknowledged messages.
func (l *load) acknowledged() []*posted {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*posted
	for _, p := range l.messages {
		if !p.acknowledged.IsZero() {
			out = append(out, p)
		}
	}
	return out
}
