package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// claimWindow is how many chunks of one upload wait for their confirmation at a time. With the one that is being read they are all of a body
// that is in memory.
const claimWindow = 3

// upload is one body on its way into the claims.
type upload struct {
	publisher *publisher
	who       contract.Connector
	claim     contract.Claim
	sum       digest
	// ring of chunks; those from first to next are on their way.
	ring        [claimWindow + 1]claimChunk
	first, next int
}

// digest of what was written.
type digest interface {
	io.Writer
	Sum(after []byte) []byte
}

// claimChunk waits for its confirmation.
type claimChunk struct {
	buffer []byte
	msg    nats.Msg
	token  uint64
	err    error
	done   waiter
}

// PublishLarge implements sdk.LargePublisher.
func (p *publisher) PublishLarge(ctx context.Context, m *sdk.Message, body io.Reader) error {
	if err := p.closed.Load(); err != nil {
		p.metrics.refused("suspended", 1)
		return *err
	}
	begun := time.Now()
	p.metrics.received.Inc()
	if p.hasTrouble.Load() && !p.mayTry(begun, true) {
		p.metrics.refused("full", 1)
		return sdk.ErrFull
	}
	g := p.groups.Get().(*group)
	defer p.groups.Put(g)
	if cap(g.items) == 0 {
		g.items = make([]publication, 1)
	}
	g.items = g.items[:1]
	defer g.release()
	item := &g.items[0]
	item.publisher, item.group, item.err, item.stored, item.duplicate, item.alone = p, g, nil, false, false, false
	if err := p.encodeLarge(&item.encoded, m, begun); err != nil {
		p.metrics.refused("invalid", 1)
		return fmt.Errorf("%w: %w", sdk.ErrInvalid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, contract.ClaimTimeout)
	defer cancel()
	u := newUpload(p, p.envelope.who)
	if err := u.store(ctx, body); err != nil {
		p.metrics.refused(uploadRefusal(err), 1)
		u.void()
		return err
	}
	item.set(contract.HeaderClaim, u.claim.String())
	err := p.publish(ctx, g, time.Now())
	if err == nil && item.duplicate || errors.Is(err, sdk.ErrFull) || errors.Is(err, sdk.ErrInvalid) {
		// No message that names it is under way any more. One may be stored all the same, when only the first confirmation was lost: the operator
		// looks before it believes this.
		u.void()
	}
	p.settle(g, err, begun)
	return err
}

// encodeLarge makes the message that will name the claim.
func (p *publisher) encodeLarge(o *encoded, m *sdk.Message, now time.Time) error {
	switch {
	case len(m.Data) > 0:
		return errors.New("it has a body besides its claim check")
	case p.door != nil || p.envelope.key != nil:
		return errors.New("a body over the bus's limit cannot be looked into: it needs a source without schema and partitionKey")
	}
	return p.envelope.encode(o, m, now)
}

// uploadRefusal is what an upload that failed is counted as.
func uploadRefusal(err error) string {
	switch {
	case errors.Is(err, sdk.ErrBody):
		return "invalid"
	case errors.Is(err, sdk.ErrFull):
		return "full"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	default:
		return "broker"
	}
}

func newUpload(p *publisher, who contract.Connector) *upload {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return &upload{publisher: p, who: who, sum: sha256.New(), claim: contract.Claim{ID: hex.EncodeToString(id[:]), Chunk: contract.ClaimChunk}}
}

// store the body in chunks, each read when there is room for it, until the broker has confirmed them all.
func (u *upload) store(ctx context.Context, body io.Reader) error {
	defer u.abandon()
	for last := false; !last; {
		c := &u.ring[u.next%len(u.ring)]
		if c.buffer == nil {
			c.buffer, c.done = make([]byte, contract.ClaimChunk), make(waiter, 1)
		}
		n, err := fill(c.buffer, body)
		switch last = errors.Is(err, io.EOF); {
		case err != nil && !last:
			return fmt.Errorf("%w: %w", sdk.ErrBody, err)
		case n == 0 && u.claim.Size > 0:
			continue // it ended with the chunk before
		case n == 0:
			return fmt.Errorf("%w: it is empty", sdk.ErrBody)
		}
		if u.claim.Size += int64(n); u.claim.Size > contract.MaxClaimSize {
			return fmt.Errorf("%w: its body has more than %d bytes", sdk.ErrInvalid, contract.MaxClaimSize)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		_, _ = u.sum.Write(c.buffer[:n])
		u.send(c, n)
		if u.next-u.first == claimWindow {
			if err := u.await(ctx); err != nil {
				return err
			}
		}
	}
	for u.first < u.next {
		if err := u.await(ctx); err != nil {
			return err
		}
	}
	u.claim.Digest = hex.EncodeToString(u.sum.Sum(nil))
	u.publisher.metrics.claims.Inc()
	u.publisher.metrics.claimBytes.Add(float64(u.claim.Size))
	return ctx.Err()
}

// fill a buffer. Not io.ReadFull, which tells a body that ended from one that broke off by an error that a broken body may have itself.
func fill(buffer []byte, r io.Reader) (n int, err error) {
	for n < len(buffer) && err == nil {
		var more int
		more, err = r.Read(buffer[n:])
		n += more
	}
	return n, err
}

// send the next chunk.
func (u *upload) send(c *claimChunk, n int) {
	c.msg = nats.Msg{
		Subject: contract.ClaimChunkSubject(u.who.Namespace, u.who.Integration, u.who.Name, u.claim.ID, u.next),
		Header:  nats.Header{headerExpectedLastBySubj: []string{"0"}},
		Data:    c.buffer[:n],
	}
	u.next++
	c.token, c.err = u.publisher.replies.publish(&c.msg, c.done)
}

// await the confirmation of the oldest chunk, and send it again while the broker is away. One that is there already is this upload's own: the
// confirmation was lost.
func (u *upload) await(ctx context.Context) error {
	c, begun := &u.ring[u.first%len(u.ring)], time.Now()
	for try := 0; ; try++ {
		err := c.err
		if err == nil {
			select {
			case err = <-c.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err == nil || isCode(err, codeWrongLastSequence) {
			u.first++
			return nil
		}
		if err = classify(err); !errors.Is(err, errAway) || time.Since(begun) > publishPatience {
			u.first++
			return fmt.Errorf("chunk %d of its claim check: %w", u.first-1, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Second, 25*time.Millisecond<<min(try, 6))):
		}
		c.token, c.err = u.publisher.replies.publish(&c.msg, c.done)
	}
}

// abandon what still waits.
func (u *upload) abandon() {
	for ; u.first < u.next; u.first++ {
		if c := &u.ring[u.first%len(u.ring)]; c.err == nil {
			u.publisher.replies.forget(c.token)
		}
	}
}

// void says that nothing will name the claim, so that its room is free soon. If it does not arrive the operator finds out by itself, later.
func (u *upload) void() {
	if u.next == 0 {
		return
	}
	_ = u.publisher.conn.nc.PublishMsg(&nats.Msg{
		Subject: contract.ClaimVoidSubject(u.who.Namespace, u.who.Integration, u.who.Name, u.claim.ID),
		Header:  nats.Header{headerExpectedLastBySubj: []string{"0"}}, Data: []byte("void"),
	})
}
