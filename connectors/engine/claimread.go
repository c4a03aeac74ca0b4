package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// claimMemory of a body that is being read: a chunk, and what the connection holds of the next.
	claimMemory = 3 * contract.ClaimChunk
	// fetchTimeout of one chunk, and fetchPatience with a broker that is away.
	fetchTimeout  = 5 * time.Second
	fetchPatience = 10 * time.Second
	// claimSettles is how long after a message was stored the servers' copies of its chunks may still be behind: until then a chunk that is not
	// there may only be late.
	claimSettles = time.Minute
)

// errClaimLost is wrapped by what a claim fails with that no attempt can mend.
var errClaimLost = errors.New("its claim check cannot be redeemed")

// claim is the sdk.Claim of one message.
type claim struct {
	contract.Claim
	nc                             *nats.Conn
	namespace, integration, source string
	stored                         time.Time
	metrics                        *destinationMetrics
}

// Size implements sdk.Claim.
func (c *claim) Size() int64 { return c.Claim.Size }

// setClaim of a message whose body was checked in. The chunks are those of the Connector that the message is of, whatever the header says.
func (d *destination) setClaim(h *held) error {
	text := first(h.in.Header, contract.HeaderClaim)
	if text == "" {
		return nil
	}
	parsed, err := contract.ParseClaim(text)
	if err != nil {
		return err
	}
	if len(h.in.Data) > 0 {
		return errors.New("it has a body besides its claim check")
	}
	subject := strings.SplitN(originalSubject(h.in), ".", 5) // decode has checked it
	h.message.Claim = &claim{
		Claim: parsed, nc: d.sink.conn.nc, namespace: subject[1], integration: subject[2], source: subject[3], stored: time.Unix(0, h.at),
		metrics: d.metrics,
	}
	return nil
}

// takesClaim says why a message with a claim cannot be delivered here; nil when it can.
func (d *destination) takesClaim(h *held) *deadLetter {
	if h.message.Claim == nil || d.streams {
		return nil
	}
	name := ""
	if d.split != nil {
		name = d.route.Steps[d.split.number].Name
	} else if s := d.route.Stateful(); s != nil {
		name = s.Name
	}
	return &deadLetter{reason: contract.DeadReasonTooLarge, step: name, err: fmt.Errorf("%w: it has %d bytes, and this destination needs it whole", sdk.ErrTooLarge, h.message.Claim.Size())}
}

// awaitClaims waits for the memory that the claims of a batch take while they are read. It is what has to be given back.
func (d *destination) awaitClaims(ready []*held) (taken int64) {
	n := int64(0)
	for _, h := range ready {
		if h.message.Claim != nil {
			n += claimMemory
		}
	}
	if n == 0 {
		return 0
	}
	if n = min(n, d.sink.bodies.total); !d.bodies.await(d.sink.deliver, n) {
		return 0
	}
	return n
}

// Open implements sdk.Claim.
func (c *claim) Open(ctx context.Context) io.ReadCloser {
	return &claimReader{claim: c, ctx: ctx, sum: sha256.New()}
}

// claimReader reads one chunk after the other.
type claimReader struct {
	claim *claim
	ctx   context.Context //nolint:containedctx // an io.Reader has no other place for it
	sum   digest
	next  int
	chunk []byte
	err   error
}

// Read implements io.Reader.
func (r *claimReader) Read(p []byte) (int, error) {
	if len(r.chunk) == 0 && r.err == nil {
		r.chunk, r.err = r.fetch()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *claimReader) Close() error {
	r.chunk, r.err = nil, io.ErrClosedPipe
	return nil
}

// fetch the next chunk, and check it: its size, and with the last one the digest of all.
func (r *claimReader) fetch() ([]byte, error) {
	c := r.claim
	chunks := c.Chunks()
	if r.next == chunks {
		return nil, io.EOF
	}
	data, err := c.get(r.ctx, r.next)
	if err != nil {
		return nil, err
	}
	want := c.Chunk
	if r.next == chunks-1 {
		want = c.Claim.Size - int64(r.next)*c.Chunk
	}
	if int64(len(data)) != want {
		return nil, sdk.Permanent(fmt.Errorf("%w: chunk %d has %d bytes instead of %d", errClaimLost, r.next, len(data), want))
	}
	_, _ = r.sum.Write(data)
	if r.next++; r.next == chunks && hex.EncodeToString(r.sum.Sum(nil)) != c.Digest {
		return nil, sdk.Permanent(fmt.Errorf("%w: it is not what the source accepted, its digest is another", errClaimLost))
	}
	c.metrics.readClaim(len(data), r.next == chunks)
	return data, nil
}

// get one chunk, with patience for a broker that is away.
func (c *claim) get(ctx context.Context, chunk int) ([]byte, error) {
	subject := contract.ClaimChunkSubject(c.namespace, c.integration, c.source, c.ID, chunk)
	begun := time.Now()
	for try := 0; ; try++ {
		data, err := c.ask(ctx, subject)
		late := errors.Is(err, errNoChunk) && time.Since(c.stored) < claimSettles
		switch {
		case err == nil:
			return data, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errNoChunk) && !late:
			return nil, sdk.Permanent(fmt.Errorf("%w: chunk %d of %d is not there", errClaimLost, chunk, c.Chunks()))
		case late && time.Since(begun) > time.Second:
			return nil, fmt.Errorf("chunk %d of %d of its claim check is not there, or not yet", chunk, c.Chunks())
		case time.Since(begun) > fetchPatience:
			return nil, sdk.Unavailable(contract.ReasonBrokerUnreachable, fmt.Errorf("reading chunk %d of a claim check: %w", chunk, err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(time.Second, 25*time.Millisecond<<min(try, 6))):
		}
	}
}

var errNoChunk = errors.New("no such chunk")

// ask whichever server answers for the last, and only, message of a subject.
func (c *claim) ask(ctx context.Context, subject string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	answer, err := c.nc.RequestWithContext(ctx, contract.APIPrefix+".DIRECT.GET."+contract.ClaimStream(c.namespace, c.integration)+"."+subject, nil)
	if err != nil {
		return nil, err
	}
	switch status := first(answer.Header, "Status"); {
	case status == "404":
		return nil, errNoChunk
	case status != "":
		return nil, fmt.Errorf("the broker answered %s %s", status, first(answer.Header, "Description"))
	case first(answer.Header, "Nats-Subject") != subject:
		return nil, fmt.Errorf("the broker answered with %.100q", first(answer.Header, "Nats-Subject"))
	}
	return answer.Data, nil
}
