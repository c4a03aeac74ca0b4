package http

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// largeMemory is what a body takes while it is checked in, whatever its size: the chunks that the engine holds, and what the connections do.
	largeMemory = 5 * contract.ClaimChunk
	// maxLarge of them at a time: as they may take long, they leave room to the others.
	maxLarge = 8
	// uploadTimeout of such a request.
	uploadTimeout = contract.ClaimTimeout
)

// checkLarge refuses a source that would have to hold bodies in memory that are to be checked in.
func checkLarge(c *contract.Config, maxBody int64) error {
	switch {
	case maxBody <= contract.MaxMessageSize:
		return nil
	case c.Source.Format != sdk.FormatBinary, c.Source.Schema != nil, c.Source.PartitionKey != "":
		return fmt.Errorf("maxBodySize over %d bytes needs format Binary, and neither schema nor partitionKey: such bodies are not looked into", contract.MaxMessageSize)
	case c.Auth.Kind == contract.AuthHMAC:
		return fmt.Errorf("maxBodySize over %d bytes needs an auth other than hmac: a signature is known only when all of a body is stored", contract.MaxMessageSize)
	}
	return nil
}

// takeLarge finds who takes the bodies that the bus does not carry.
func (h *handler) takeLarge(bus sdk.Publisher) error {
	if h.maxBody <= contract.MaxMessageSize {
		return nil
	}
	large, ok := bus.(sdk.LargePublisher)
	if !ok {
		return errors.New("the engine takes no bodies over the bus's limit")
	}
	h.large = large
	return nil
}

// begin a body that is checked in, unless there are too many. release gives back what it holds.
func (h *handler) begin(rest io.Reader, release func()) ([]byte, io.Reader, func(), *problem) {
	if h.larges.Add(1) > maxLarge {
		h.larges.Add(-1)
		release()
		return nil, nil, nil, unavailable(5, "too many large bodies are being received at a time: send it again")
	}
	return nil, rest, func() { h.larges.Add(-1); release() }, nil
}

// after calls what is to be done before it is read, once.
type after struct {
	io.Reader
	first func()
}

func (a *after) Read(p []byte) (int, error) {
	if a.first != nil {
		a.first()
		a.first = nil
	}
	return a.Reader.Read(p)
}

// acceptLarge passes a body on as it is read. Everything else of the request is checked before.
func (h *handler) acceptLarge(w http.ResponseWriter, r *http.Request, body io.Reader) (ids []string, p *problem) {
	switch media := mediaType(r.Header.Get("Content-Type")); media {
	case mediaStructured, mediaBatch:
		return nil, problemf(http.StatusRequestEntityTooLarge, "a body of more than %d bytes is taken in CloudEvents' binary mode only: send the attributes as headers", contract.MaxMessageSize)
	}
	messages, _, p := h.messages(r, nil)
	if p != nil {
		return nil, p
	}
	until := time.Now().Add(uploadTimeout)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(until) // without it the source's own, shorter one holds
	_ = control.SetWriteDeadline(until.Add(publishTimeout))
	ctx, cancel := context.WithDeadline(r.Context(), until)
	defer cancel()
	err := h.large.PublishLarge(ctx, messages[0], body)
	switch {
	case err == nil:
		return []string{messages[0].ID}, nil
	case errors.Is(err, sdk.ErrBody):
		return nil, h.unread(err)
	default:
		return nil, busProblem(err)
	}
}

// Streams implements sdk.Streaming: a claim becomes the body of the request as it is read. Expressions that look into it fail.
func (o *operation) Streams() bool { return true }

// largeBody is the body of a request that is read from a claim, anew for each time that it is sent.
type largeBody struct {
	ctx    context.Context //nolint:containedctx // the request's; GetBody has no parameter for it
	claim  sdk.Claim
	failed atomic.Pointer[error]
}

// give the body to a request.
func (b *largeBody) give(r *http.Request) {
	r.ContentLength = b.claim.Size()
	r.GetBody = func() (io.ReadCloser, error) { return &largeReader{b.claim.Open(b.ctx), b}, nil }
	r.Body, _ = r.GetBody()
}

// failure is why the claim could not be read to its end; nil when it could, when the request was over before, or when there is none.
func (b *largeBody) failure() error {
	if b == nil || b.ctx.Err() != nil {
		return nil
	}
	if err := b.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// signature of the body, for which it is read through once more.
func (b *largeBody) signature(key []byte) ([]byte, error) {
	mac, body := hmac.New(sha256.New, key), b.claim.Open(b.ctx)
	defer func() { _ = body.Close() }()
	if _, err := io.Copy(mac, body); err != nil {
		return nil, &claimError{err}
	}
	return mac.Sum(nil), nil
}

// largeReader notes why it failed: the transport would tell it from a connection that broke no more.
type largeReader struct {
	io.ReadCloser
	of *largeBody
}

func (r *largeReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		r.of.failed.Store(&err)
	}
	return n, err
}

// claimError is of a claim that could not be read before there was a request.
type claimError struct{ err error }

func (e *claimError) Error() string { return e.err.Error() }
func (e *claimError) Unwrap() error { return e.err }

// unbuilt is what it means that no request could be made: the message is at fault, unless its claim could not be read.
func (o *operation) unbuilt(err error) error {
	err = fmt.Errorf("%s: %w", o.endpoint, err)
	if e := (*claimError)(nil); errors.As(err, &e) {
		return err
	}
	return sdk.Permanent(err)
}
