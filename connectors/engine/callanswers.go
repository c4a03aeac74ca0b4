package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// lostPatience is how long an answer is still waited for after the connection broke: it may come over the next one, and may be lost.
	lostPatience = 3 * time.Second
	// settlePatience is how long a reconnection that is wanted waits for calls that are under way; gateTime is the longest that new ones wait for it.
	settlePatience = 2 * time.Second
	gateTime       = 5 * time.Second
	// maxHeldAnswers is what all answers that callers have not taken yet may hold, in bytes.
	maxHeldAnswers = 48 << 20
)

var (
	errNoResponders = errors.New("nobody takes the requests of this service")
	errAnswersHeld  = errors.New("too many large answers wait for their callers to take them")
)

// answers matches what services answer with the calls that wait for it, over one subscription.
type answers struct {
	nc     *nats.Conn
	prefix string

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]*waitingCall
	held    int
	// limit of held.
	limit int
	// gate is not nil while the connection is about to be changed: new calls wait for it. empty is told when nothing waits any more.
	gate  chan struct{}
	empty chan struct{}
}

// waitingCall gets one answer, or the error why there will be none.
type waitingCall struct {
	subject string
	begun   time.Time
	answer  chan answered
}

type answered struct {
	msg *nats.Msg
	err error
}

func newAnswers(c *connection) (*answers, error) {
	a := &answers{nc: c.nc, prefix: c.nc.NewInbox() + ".", waiting: map[uint64]*waitingCall{}, limit: maxHeldAnswers}
	sub, err := c.nc.Subscribe(a.prefix+"*", a.take)
	if err != nil {
		return nil, fmt.Errorf("subscribe to answers: %w", err)
	}
	// take never waits: it is held that is bounded.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	c.listen(listener{
		settle: a.settle, up: a.open,
		down: func() {
			broke := time.Now()
			time.AfterFunc(lostPatience, func() {
				a.fail(errLost, func(w *waitingCall) bool { return !w.begun.After(broke) })
			})
		},
		denied: func(subject string) {
			err := fmt.Errorf("the broker does not allow calling %s: %w", subject, nats.ErrPermissionViolation)
			a.fail(err, func(w *waitingCall) bool { return w.subject == subject })
		},
	})
	return a, nil
}

// settle lets the calls end that wait for their answers, and holds up new ones.
func (a *answers) settle() {
	a.mu.Lock()
	if a.gate == nil {
		gate := make(chan struct{})
		a.gate = gate
		time.AfterFunc(gateTime, func() { a.openGate(gate) })
	}
	a.empty = make(chan struct{}, 1)
	a.drained()
	empty := a.empty
	a.mu.Unlock()
	select {
	case <-empty:
	case <-time.After(settlePatience):
	}
}

// drained tells settle. The caller holds the lock.
func (a *answers) drained() {
	if len(a.waiting) == 0 && a.empty != nil {
		select {
		case a.empty <- struct{}{}:
		default:
		}
	}
}

func (a *answers) open() { a.openGate(nil) }

// openGate opens this gate, or whichever there is.
func (a *answers) openGate(which chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gate != nil && (which == nil || which == a.gate) {
		close(a.gate)
		a.gate, a.empty = nil, nil
	}
}

// enter waits while the connection is about to be changed.
func (a *answers) enter(ctx context.Context) {
	a.mu.Lock()
	gate := a.gate
	a.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
}

// wait for an answer to a request that goes to the subject. The reply subject is the request's.
func (a *answers) wait(subject string) (token uint64, reply string, w *waitingCall) {
	w = &waitingCall{subject: subject, begun: time.Now(), answer: make(chan answered, 1)}
	a.mu.Lock()
	a.last++
	token = a.last
	a.waiting[token] = w
	a.mu.Unlock()
	return token, a.prefix + strconv.FormatUint(token, 36), w
}

// forget a call. What has come for it is let go.
func (a *answers) forget(token uint64, w *waitingCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, token)
	a.drained()
	select {
	case late := <-w.answer:
		if late.msg != nil {
			a.held -= len(late.msg.Data)
		}
	default:
	}
}

// free what an answer held.
func (a *answers) free(size int) {
	a.mu.Lock()
	a.held -= size
	a.mu.Unlock()
}

func (a *answers) take(m *nats.Msg) {
	token, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w, ok := a.waiting[token]
	if !ok {
		return
	}
	delete(a.waiting, token)
	a.drained()
	switch {
	case len(m.Data) == 0 && first(m.Header, "Status") == "503":
		w.answer <- answered{err: errNoResponders}
	case a.held+len(m.Data) > a.limit:
		w.answer <- answered{err: errAnswersHeld}
	default:
		a.held += len(m.Data)
		w.answer <- answered{msg: m}
	}
}

func (a *answers) fail(err error, which func(*waitingCall) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for token, w := range a.waiting {
		if which(w) {
			delete(a.waiting, token)
			w.answer <- answered{err: err}
		}
	}
	a.drained()
}
