package stomp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	// maxSend is how many messages wait for their receipts together.
	maxSend = 128
	// confirmTimeout of a receipt that nothing else bounds.
	confirmTimeout = 15 * time.Second
)

// confirm sends a frame that asks for a receipt, and waits for it. Nobody else reads.
func (l *link) confirm(f *frame, receipt string) error {
	_ = l.conn.SetDeadline(time.Now().Add(confirmTimeout))
	if err := l.write(f); err != nil {
		return err
	}
	for {
		answer, err := readFrame(l.reader, maxHead)
		switch {
		case err != nil:
			return err
		case answer == nil:
		case answer.command == cmdError:
			return serverError(answer)
		case answer.command == cmdReceipt && answer.get(hdrReceiptID) == receipt:
			return nil
		}
	}
}

// sink sends over one connection.
type sink struct {
	dialer  *cluster.Dialer
	options *connectionOptions
	raw     json.RawMessage
	turn    chan struct{} // one dials

	mu      sync.Mutex
	current *sender
	version uint64
	closed  bool
}

// NewSink makes a sink of the JSON of the API's STOMPSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	d, err := newDialer(rt, &o.Connection)
	if err != nil {
		return nil, err
	}
	return &sink{dialer: d, options: &o.Connection, raw: o.Send, turn: make(chan struct{}, 1)}, nil
}

// Operation compiles what is sent; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.raw
	}
	o, err := decodeSend(raw)
	if err != nil {
		return nil, err
	}
	return newOperation(s, o)
}

// Check connects. Whether a destination takes messages only sending can tell.
func (s *sink) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cluster.Timeout)
	defer cancel()
	w, err := s.sender(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = unavailable(s.dialer.Servers[0].Endpoint, errors.New("no answer in time"))
		}
		return err
	}
	return w.alive(ctx)
}

// Close the connection.
func (s *sink) Close() error {
	s.mu.Lock()
	w := s.current
	s.current, s.closed = nil, true
	s.mu.Unlock()
	if w != nil {
		w.link.close()
	}
	return nil
}

// sender is the present connection, or a new one.
func (s *sink) sender(ctx context.Context) (*sender, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	version := s.dialer.Runtime.Secrets.Version()
	s.mu.Lock()
	w, same, closed := s.current, s.version == version, s.closed
	s.mu.Unlock()
	if closed {
		return nil, unavailable(s.dialer.Servers[0].Endpoint, errors.New("the sink is closed"))
	}
	if w != nil && !w.over() && (same || !s.dialer.Outdated(w.link.proof)) {
		return w, nil
	}
	l, err := dial(ctx, s.dialer, s.options)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	made := &sender{link: l, waiting: map[string]chan error{}, lost: make(chan struct{})}
	go made.read()
	s.mu.Lock()
	former := s.current
	s.current, s.version = made, version
	s.mu.Unlock()
	if former != nil {
		former.retire()
	}
	return made, nil
}

// sender is a connection with the receipts that are waited for.
type sender struct {
	link *link

	mu      sync.Mutex
	waiting map[string]chan error
	serial  uint64
	retired bool
	// lost is closed with the connection; cause is why, and set before.
	lost  chan struct{}
	cause error
}

func (w *sender) over() bool {
	select {
	case <-w.lost:
		return true
	default:
		return false
	}
}

// retire the connection: it ends when nobody waits for a receipt.
func (w *sender) retire() {
	w.mu.Lock()
	w.retired = true
	idle := len(w.waiting) == 0
	w.mu.Unlock()
	if idle {
		w.link.close()
	}
}

// read receipts until the connection ends.
func (w *sender) read() {
	for {
		f, err := w.link.read()
		if err == nil && f.command == cmdReceipt {
			w.answer(f.get(hdrReceiptID), nil)
			continue
		}
		if err == nil && f.command == cmdError {
			err = serverError(f)
			if id := f.get(hdrReceiptID); id != "" {
				w.answer(id, err)
			}
		}
		if err == nil {
			continue
		}
		var answer *errServer
		if errors.As(err, &answer) && !answer.refused {
			// It may be one message's doing, and ends the connection for all.
			err = fmt.Errorf("the server has ended the connection: %w", err)
		}
		w.cause = unavailable(w.link.endpoint, err)
		close(w.lost)
		w.link.close()
		return
	}
}

func (w *sender) answer(receipt string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.waiting[receipt]; c != nil {
		c <- err
		delete(w.waiting, receipt)
	}
}

// ask for a receipt; c gets the answer.
func (w *sender) ask() (receipt string, c chan error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serial++
	receipt, c = strconv.FormatUint(w.serial, 10), make(chan error, 1)
	w.waiting[receipt] = c
	return receipt, c
}

func (w *sender) forget(receipt string) {
	w.mu.Lock()
	delete(w.waiting, receipt)
	end := w.retired && len(w.waiting) == 0
	w.mu.Unlock()
	if end {
		w.link.close()
	}
}

// wait for a receipt.
func (w *sender) wait(ctx context.Context, receipt string, c chan error) error {
	defer w.forget(receipt)
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-w.lost:
		select {
		case err := <-c:
			return err
		default:
			return w.cause
		}
	}
}

// alive asks the server for a sign of life: a receipt for an acknowledgement of nothing does not exist in STOMP, a transaction of nothing does.
func (w *sender) alive(ctx context.Context) error {
	receipt, c := w.ask()
	id := "check-" + receipt
	if err := w.send(ctx, newFrame("BEGIN", hdrTransaction, id), newFrame("ABORT", hdrTransaction, id, hdrReceipt, receipt)); err != nil {
		w.forget(receipt)
		return err
	}
	err := w.wait(ctx, receipt, c)
	if err != nil && ctx.Err() != nil {
		err = errors.New("no answer in time")
	}
	if err != nil {
		return unavailable(w.link.endpoint, err)
	}
	return nil
}

// send frames. A server that takes nothing is left when ctx ends.
func (w *sender) send(ctx context.Context, frames ...*frame) error {
	done := make(chan struct{})
	defer close(done)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(time.Second):
			w.link.close()
		}
	})
	defer stop()
	err := w.link.write(frames...)
	if err == nil {
		return nil
	}
	w.link.close()
	select { // who reads knows why
	case <-w.lost:
		return w.cause
	case <-time.After(time.Second):
		return unavailable(w.link.endpoint, err)
	}
}

// operation sends to one destination.
type operation struct {
	sink        *sink
	options     sendOptions
	destination *steps.Template
	headers     []headerTemplate
}

type headerTemplate struct {
	name  string
	value *steps.Template
}

func newOperation(s *sink, o sendOptions) (*operation, error) {
	op := &operation{sink: s, options: o}
	var err error
	if op.destination, err = steps.CompileTemplate(o.Destination); err != nil {
		return nil, fmt.Errorf("destination: %w", err)
	}
	for name, text := range o.Headers {
		value, err := steps.CompileTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		op.headers = append(op.headers, headerTemplate{name, value})
	}
	slices.SortFunc(op.headers, func(a, b headerTemplate) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return op, nil
}

// MaxBatch is what waits for receipts together.
func (o *operation) MaxBatch() int { return maxSend }

// Write sends the messages in their order, and waits for the server's receipts.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	fail := func(err error) []error {
		for i := range results {
			if results[i] == nil {
				results[i] = err
			}
		}
		return results
	}
	w, err := o.sink.sender(ctx)
	if err != nil {
		return fail(err)
	}
	var frames []*frame
	var at []int
	for i, d := range batch {
		f, err := o.frame(d)
		if err != nil {
			results[i] = sdk.Permanent(fmt.Errorf("%s: %w", w.link.endpoint, err))
			continue
		}
		frames, at = append(frames, f), append(at, i)
	}
	if w.link.flushes && len(frames) > 1 {
		err := w.together(ctx, frames)
		var answer *errServer
		if err == nil || !errors.As(err, &answer) {
			return fail(err)
		}
		// One of them is to blame, and which one the server only says when each has a receipt of its own.
		if w, err = o.sink.sender(ctx); err != nil {
			return fail(err)
		}
	}
	for n, err := range w.singly(ctx, frames) {
		results[at[n]] = o.judge(w, err)
	}
	return results
}

// together sends frames in a transaction, with a receipt for all of them.
func (w *sender) together(ctx context.Context, frames []*frame) error {
	receipt, c := w.ask()
	id := "batch-" + receipt
	all := append(make([]*frame, 0, len(frames)+2), newFrame("BEGIN", hdrTransaction, id))
	for _, f := range frames {
		f.set(hdrTransaction, id)
		all = append(all, f)
	}
	defer func() {
		for _, f := range frames {
			f.headers = f.headers[:len(f.headers)-1]
		}
	}()
	if err := w.send(ctx, append(all, newFrame("COMMIT", hdrTransaction, id, hdrReceipt, receipt))...); err != nil {
		w.forget(receipt)
		return err
	}
	return w.wait(ctx, receipt, c)
}

// singly sends frames that have a receipt each.
func (w *sender) singly(ctx context.Context, frames []*frame) []error {
	results := make([]error, len(frames))
	receipts, answers := make([]string, len(frames)), make([]chan error, len(frames))
	for i, f := range frames {
		receipts[i], answers[i] = w.ask()
		f.set(hdrReceipt, receipts[i])
	}
	err := w.send(ctx, frames...)
	for i := range frames {
		if results[i] = w.wait(ctx, receipts[i], answers[i]); results[i] != nil && err != nil {
			results[i] = err
		}
	}
	return results
}

// judge what the server says of a message.
func (o *operation) judge(w *sender, err error) error {
	var answer *errServer
	if err == nil || !errors.As(err, &answer) {
		return err
	}
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return err
	}
	err = fmt.Errorf("%s: destination %s: %w", w.link.endpoint, o.options.Destination, err)
	if answer.refused {
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, err)
	}
	return err
}

// frame of a message. An error is the message's own.
func (o *operation) frame(d *sdk.Delivery) (*frame, error) {
	m := d.Message
	destination, err := o.destination.Expand(m, nil)
	if err != nil {
		return nil, fmt.Errorf("destination: %w", err)
	}
	if destination == "" || len(destination) > maxDestination || !binding.Clean(destination) {
		return nil, errors.New("destination: it is empty, too long, or holds control characters")
	}
	f := newFrame(cmdSend, hdrDestination, destination, "persistent", strconv.FormatBool(!o.options.Transient), eventPrefix+"specversion", contract.SpecVersion,
		eventPrefix+"id", m.ID, eventPrefix+"source", m.Source, eventPrefix+"type", m.Type)
	if m.ContentType != "" {
		f.set(hdrContentType, m.ContentType)
	}
	o.properties(f, d)
	for name, value := range m.Headers {
		if name == contract.HeaderTraceParent || name == contract.HeaderTraceState {
			f.set(name, value)
		} else {
			f.set(eventPrefix+name, value)
		}
	}
	for i := range o.headers {
		h := &o.headers[i]
		value, err := h.value.Expand(m, nil)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.name, err)
		}
		f.set(h.name, value)
	}
	f.body = m.Data
	// Without content-length ActiveMQ makes a TextMessage of it, which most JMS programs expect, with it a BytesMessage.
	if text := m.Format != sdk.FormatBinary && o.options.Body != bodyBytes; !text || bytes.IndexByte(m.Data, 0) >= 0 {
		f.set(hdrContentLength, strconv.Itoa(len(m.Data)))
	}
	return f, nil
}

func (o *operation) properties(f *frame, d *sdk.Delivery) {
	m := d.Message
	if !m.Time.IsZero() {
		f.set(eventPrefix+"time", m.Time.UTC().Format(time.RFC3339Nano))
	}
	if m.Subject != "" {
		f.set(eventPrefix+"subject", m.Subject)
	}
	if m.PartitionKey != "" {
		f.set(eventPrefix+"partitionkey", m.PartitionKey)
	}
	if m.History != "" {
		f.set(contract.HeaderHistory, m.History)
	}
	if id := m.Headers[nameCorrelationID]; id != "" {
		f.set("correlation-id", id)
	}
	// The same for every attempt and every Replay, and another for each destination.
	f.set("metip-message-id", d.Durable+"/"+d.MessageID)
	f.set("amqp-message-id", binding.Short(d.Durable+"/"+d.MessageID))
	if o.options.Priority != nil {
		f.set("priority", strconv.Itoa(*o.options.Priority))
	}
	if e := time.Duration(o.options.Expiration); e > 0 {
		f.set("expires", strconv.FormatInt(time.Now().Add(e).UnixMilli(), 10))
		f.set("expiration", strconv.FormatInt(e.Milliseconds(), 10)) // RabbitMQ's
	}
}
