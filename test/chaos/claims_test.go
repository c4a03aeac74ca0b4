package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

const (
	// claimEvery is between two bodies that travel as claim checks. What the window of de-duplication holds of them fits into claimsSize.
	claimEvery = 4 * time.Second
	claimsSize = 128 << 20
	// claimTimeout of a client, whose upload takes longer than a small message.
	claimTimeout = 10 * time.Second
	// orphanTime is how long the operator keeps what was never named, at its interval of a second (60 looks), and half as long again.
	orphanTime = 90 * time.Second
)

// claimBody of an id: larger than a message may be, and the same each time.
func claimBody(id string) []byte {
	seed := sha256.Sum256([]byte(id))
	body := make([]byte, contract.MaxMessageSize+1+int(seed[0])<<12)
	_, _ = rand.NewChaCha8(seed).Read(body)
	return body
}

// startClaims starts the source of large bodies. They share the integration, its streams and the HTTP sink with the other messages; flow is theirs.
func (w *world) startClaims(b binaries, limits loopback.Limits, flow loopback.Flow) {
	source := w.config(flow.Source)
	source.Source = &contract.Source{
		System:    contract.System{Type: "http", Options: json.RawMessage(`{"path":"/blobs","maxBodySize":"16Mi"}`)},
		EventType: "blob", Format: "Binary", DeduplicationWindow: contract.Duration(window),
	}
	other := w.listener
	w.listener = freeAddress(w.t)
	w.claims = w.pod(b, source, w.prepare(limits, flow).Source, nil)
	w.listener, w.claimListener = other, w.listener
}

// claimRoute delivers what is not looked into.
func claimRoute(f loopback.Flow) contract.Route {
	r := route(f)
	r.Sources = []string{f.Source}
	r.Operation = json.RawMessage(`{"method":"PUT","path":"/blobs"}`)
	// The target's confirmation counts, however long the body was on its way.
	r.Delivery.Timeout = contract.Duration(20 * time.Second)
	return r
}

// postClaims until begin ends, each until it is acknowledged.
func (l *load) postClaims(ctx, begin context.Context, url string) {
	tick := time.NewTicker(claimEvery)
	defer tick.Stop()
	client := &http.Client{Timeout: claimTimeout}
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-begin.Done():
			return
		}
		id := fmt.Sprintf("c%06d", n)
		body := claimBody(id)
		l.until(ctx, []*posted{{record: record{ID: id, Keep: true}, claim: true}}, func() int { return post(ctx, client, url, "application/octet-stream", id, body) })
	}
}

// takeClaim is what the target does with a body that came by a claim check: it is the one that was sent, byte for byte.
func (g *target) takeClaim(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	id = r.Header.Get("Ce-Id")
	got, err := io.ReadAll(r.Body)
	if err != nil {
		return id, false // it has not arrived whole: nothing was done
	}
	if !bytes.Equal(got, claimBody(id)) {
		g.refuse(fmt.Sprintf("another body: %s, %d bytes", id, len(got)), w, http.StatusBadRequest)
		return id, false
	}
	return id, true
}

// claimCount is what became of the claims.
type claimCount struct{ uploads, named, young int }

// countClaims looks at what is stored, once the cleaner has had the time to look: nothing is there that nothing names, but for what is too young
// to be taken for an orphan.
func (w *world) countClaims(t *testing.T) (n claimCount) {
	var left string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		if n, left = w.lookAtClaims(); left == "" {
			return n
		}
		if time.Now().After(deadline) {
			t.Error(left)
			return n
		}
	}
}

func (w *world) lookAtClaims() (n claimCount, left string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	begun := map[string]time.Time{}
	named := map[string]bool{}
	err := w.headers(ctx, contract.ClaimStream(loopback.Namespace, "chaos"), func(m jetstream.Msg, at time.Time) {
		if _, id, _, ok := contract.ParseClaimSubject(m.Subject()); ok && begun[id].Before(at) {
			begun[id] = at
		}
	})
	for _, stream := range []string{contract.DeadStream(loopback.Namespace, "chaos"), contract.EventStream(loopback.Namespace, "chaos")} {
		if err == nil {
			err = w.headers(ctx, stream, func(m jetstream.Msg, _ time.Time) {
				if c, err := contract.ParseClaim(m.Headers().Get(contract.HeaderClaim)); err == nil {
					named[c.ID] = true
				}
			})
		}
	}
	if err != nil {
		return n, fmt.Sprintf("the streams cannot be read: %v", err)
	}
	n.uploads = len(begun)
	for id, at := range begun {
		switch {
		case named[id]:
			n.named++
		case time.Since(at) < orphanTime:
			n.young++
		default:
			left = fmt.Sprintf("claim %s is there since %s, and nothing names it", id, at.Format(clock))
		}
	}
	return n, left
}

// headers of all messages of a stream, or of some subjects of it.
func (w *world) headers(ctx context.Context, stream string, each func(jetstream.Msg, time.Time), subjects ...string) error {
	consumer, err := w.broker.JetStream().OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{HeadersOnly: true, FilterSubjects: subjects})
	if err != nil {
		return err
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return err
	}
	for left := info.NumPending; left > 0; {
		// Many at a time: an ordered consumer is made anew for each lot.
		lot, err := consumer.Fetch(int(min(left, 1000)), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return err
		}
		before := left
		for m := range lot.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			left = min(left-1, meta.NumPending) // some are trimmed meanwhile
			each(m, meta.Timestamp)
		}
		if err := lot.Error(); err != nil {
			return err
		}
		if left == before {
			return fmt.Errorf("%d messages of %s did not come", left, stream)
		}
	}
	return nil
}
