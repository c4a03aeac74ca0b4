package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/metip/metip/connectors/sdk"
)

// maxSend is how many messages wait for their acknowledgements together; a server may take fewer.
const maxSend = 128

// publication is a message that goes out.
type publication struct {
	topic  string
	qos    byte
	retain bool
	body   []byte
	properties
}

// sender is a connection with the acknowledgements that are waited for.
type sender struct {
	link *link
	// slots are as many as the server takes messages that it has not acknowledged.
	slots chan struct{}

	mu      sync.Mutex
	waiting map[uint16]chan error
	pings   []chan struct{}
	serial  uint16
	retired bool
	// lost is closed with the connection; cause is why, and set before.
	lost  chan struct{}
	cause error
}

// openSender connects under a name of its own, without a session.
func openSender(ctx context.Context, d *dialer) (*sender, error) {
	l, err := d.dial(ctx, hello{client: "metip" + rand.Text()[:16], clean: true})
	if err != nil {
		return nil, err
	}
	window := maxSend
	if most := int(l.accepted.receiveMaximum); most > 0 {
		window = min(window, most)
	}
	w := &sender{link: l, slots: make(chan struct{}, window), waiting: map[uint16]chan error{}, lost: make(chan struct{})}
	go w.read()
	return w, nil
}

func (w *sender) over() bool {
	select {
	case <-w.lost:
		return true
	default:
		return false
	}
}

// retire the connection: it ends when nobody waits for an acknowledgement.
func (w *sender) retire() {
	w.mu.Lock()
	w.retired = true
	idle := len(w.waiting) == 0
	w.mu.Unlock()
	if idle {
		w.link.leave()
	}
}

// read acknowledgements until the connection ends.
func (w *sender) read() {
	for {
		p, err := w.link.read()
		if err != nil || p.kind == kindDisconnect {
			w.cause = unavailable(w.link.endpoint, ended(p, err))
			close(w.lost)
			w.link.close()
			return
		}
		switch p.kind {
		case kindPuback, kindPubcomp:
			w.answer(p)
		case kindPubrec:
			if p.code >= codeFailed { // it ends here
				w.answer(p)
				continue
			}
			_ = w.link.write(appendAck(nil, kindPubrel, p.id)) // that it is lost the next read will see
		case kindPingresp:
			w.mu.Lock()
			for _, c := range w.pings {
				close(c)
			}
			w.pings = nil
			w.mu.Unlock()
		}
	}
}

func (w *sender) answer(p *packet) {
	w.mu.Lock()
	c := w.waiting[p.id]
	delete(w.waiting, p.id)
	end := w.retired && len(w.waiting) == 0
	w.mu.Unlock()
	if c == nil {
		return
	}
	if p.code >= codeFailed {
		c <- reasonError(p.code, p.reason)
	} else {
		c <- nil
	}
	<-w.slots
	if end {
		w.link.leave()
	}
}

// ask for an acknowledgement; c gets it. A message whose answer nobody waits for any longer keeps its packet id until it comes.
func (w *sender) ask() (id uint16, c chan error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.serial++; w.serial == 0 || w.waiting[w.serial] != nil; {
		w.serial++
	}
	c = make(chan error, 1)
	w.waiting[w.serial] = c
	return w.serial, c
}

// wait for an acknowledgement.
func (w *sender) wait(ctx context.Context, c chan error) error {
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

// alive asks the server for a sign of life.
func (w *sender) alive(ctx context.Context) error {
	c := make(chan struct{})
	w.mu.Lock()
	w.pings = append(w.pings, c)
	w.mu.Unlock()
	if err := w.send(ctx, []byte{kindPingreq << 4, 0}); err != nil {
		return err
	}
	select {
	case <-c:
		return nil
	case <-w.lost:
		return w.cause
	case <-ctx.Done():
		return unavailable(w.link.endpoint, errors.New("no answer in time"))
	}
}

// send packets. A server that takes nothing is left when ctx ends.
func (w *sender) send(ctx context.Context, packets []byte) error {
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
	err := w.link.write(packets)
	if err == nil {
		return nil
	}
	w.link.close()
	select { // who reads knows why
	case <-w.lost:
		return w.cause
	case <-time.After(certificateWait):
		return unavailable(w.link.endpoint, err)
	}
}

// encode a message. An error is the message's own.
func (w *sender) encode(out []byte, p *publication, id uint16) ([]byte, error) {
	head := appendText(nil, p.topic)
	head = binary.BigEndian.AppendUint16(head, id)
	if w.link.five {
		props, err := p.encode()
		if err != nil {
			return out, err
		}
		head = append(head, props...)
	}
	flags := p.qos << 1
	if p.retain {
		flags |= 1
	}
	before := len(out)
	out = appendPacket(out, kindPublish, flags, head, p.body)
	if most := int(w.link.accepted.maximumPacketSize); most > 0 && len(out)-before > most {
		return out[:before], fmt.Errorf("it takes %d bytes, and the server %d at most", len(out)-before, most)
	}
	return out, nil
}

// capable tells what the server cannot do of what a message asks.
func (w *sender) capable(p *publication) error {
	switch a := &w.link.accepted.properties; {
	case a.maximumQoS < p.qos:
		return unavailable(w.link.endpoint, &errServer{text: fmt.Sprintf("the server takes QoS %d at most, and qos is %d", a.maximumQoS, p.qos)})
	case a.noRetain && p.retain:
		return unavailable(w.link.endpoint, &errServer{text: "the server keeps no retained messages: leave retain out"})
	}
	return nil
}

// publish messages in their order, and wait for the acknowledgement of each. A nil one is passed over.
func (w *sender) publish(ctx context.Context, batch []*publication) []error {
	results := make([]error, len(batch))
	waits := make([]chan error, len(batch))
	var out []byte
	var failed error
	for i, p := range batch {
		if p == nil {
			continue
		}
		if results[i] = w.capable(p); results[i] != nil {
			continue
		}
		if failed == nil {
			out, failed = w.slot(ctx, out)
		}
		if failed != nil {
			results[i] = failed
			continue
		}
		id, c := w.ask()
		var err error
		if out, err = w.encode(out, p, id); err != nil {
			w.mu.Lock()
			delete(w.waiting, id)
			w.mu.Unlock()
			<-w.slots
			results[i] = sdk.Permanent(fmt.Errorf("%s: topic %s: %w", w.link.endpoint, p.topic, err))
			continue
		}
		waits[i] = c
	}
	if failed == nil && len(out) > 0 {
		failed = w.send(ctx, out)
	}
	for i, c := range waits {
		if c == nil {
			continue
		}
		if results[i] = w.wait(ctx, c); results[i] != nil && failed != nil {
			results[i] = failed
		}
		results[i] = judge(w.link.endpoint, batch[i].topic, results[i])
	}
	return results
}

// slot for one more message; what is to go out goes first, where the server has to answer before there is one.
func (w *sender) slot(ctx context.Context, out []byte) ([]byte, error) {
	if len(out) < maxBatchBytes {
		select {
		case w.slots <- struct{}{}:
			return out, nil
		default:
		}
	}
	if len(out) > 0 {
		if err := w.send(ctx, out); err != nil {
			return nil, err
		}
	}
	select {
	case w.slots <- struct{}{}:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.lost:
		return nil, w.cause
	}
}
