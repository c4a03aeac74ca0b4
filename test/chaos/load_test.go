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
	// Every now and then one posts many at a time: batchSize events, once in batchEvery messages. The connector publishes them as one atomic batch.
	batchSize, batchEvery = 100, 2 * rate
)

// posted is what the client knows of a message.
type posted struct {
	record
	first, acknowledged time.Time
	attempts            int
	// claim: it travels as a claim check, to the HTTP target only.
	claim bool
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
	jobs := make(chan []record)
	go func() {
		defer close(jobs)
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for n, next := 0, batchEvery; ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			size := 1
			if n >= next {
				size, next = batchSize, n+batchSize+batchEvery
			}
			var records []record
			for range size {
				records = append(records, l.record(n, size > 1))
				n++
			}
			select {
			case jobs <- records:
			case <-ctx.Done():
				return
			}
		}
	}()
	var all sync.WaitGroup
	for range posters {
		all.Go(func() {
			for records := range jobs {
				l.post(t.Context(), records)
			}
		})
	}
	if w.claims != nil {
		all.Go(func() { l.postClaims(t.Context(), ctx, "http://"+w.claimListener+"/blobs") })
	}
	go func() {
		all.Wait()
		close(l.done)
	}()
	t.Cleanup(func() { stop(); <-l.done })
	return l
}

// record n: every fifth is filtered out, every fiftieth is rejected, some are large, but for those of a batch.
func (l *load) record(n int, ofBatch bool) record {
	size := 200 + l.dice.below(1500)
	if n%150 == 149 && !ofBatch {
		size = 50_000 + l.dice.below(400_000)
	}
	return record{ID: fmt.Sprintf("m%06d", n), Keep: n%5 != 0, Reject: n%50 == 7, Pad: strings.Repeat("x", size)}
}

// post messages, together if there are several, until they are acknowledged.
func (l *load) post(ctx context.Context, records []record) {
	contentType, id, body := request(records)
	var all []*posted
	for _, r := range records {
		r.Pad = ""
		all = append(all, &posted{record: r})
	}
	l.until(ctx, all, func() int { return post(ctx, l.client, l.url, contentType, id, body) })
}

// until messages are acknowledged, try.
func (l *load) until(ctx context.Context, all []*posted, try func() int) {
	begun := time.Now()
	l.mu.Lock()
	for _, p := range all {
		p.first = begun
		l.messages[p.ID] = p
	}
	l.mu.Unlock()
	for ctx.Err() == nil {
		status := try()
		l.mu.Lock()
		for _, p := range all {
			p.attempts++
			if status != http.StatusAccepted {
				continue
			}
			p.acknowledged = time.Now()
			if l.worst == nil || p.waited() > l.worst.waited() {
				l.worst = p
			}
		}
		if status == http.StatusAccepted {
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

// request that posts one record with its id, or several as a batch of CloudEvents, which have theirs.
func request(records []record) (contentType, id string, body []byte) {
	if len(records) == 1 {
		return "application/json", records[0].ID, encoded(records[0])
	}
	var events []map[string]any
	for _, r := range records {
		events = append(events, map[string]any{
			"specversion": "1.0", "id": r.ID, "source": "urn:chaos", "type": "case", "datacontenttype": "application/json", "data": r,
		})
	}
	return "application/cloudevents-batch+json", "", encoded(events)
}

func encoded(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return body
}

// post once. The status is 0 when there was no answer.
func post(ctx context.Context, client *http.Client, url, contentType, id string, body []byte) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", contentType)
	if id != "" {
		request.Header.Set("Idempotency-Key", id)
	}
	response, err := client.Do(request)
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
