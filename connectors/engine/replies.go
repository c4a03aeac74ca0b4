package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// ackTimeout is how long a confirmation of the broker is waited for, to within a second.
const ackTimeout = 5 * time.Second

// errTimeout: the broker did not answer; what was asked may or may not have been done.
var errTimeout = errors.New("the broker did not confirm within " + ackTimeout.String())

// apiError is an answer of JetStream that says no.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// Error codes of JetStream that mean something to the engine.
const (
	codeStreamFull           = 10077
	codeInsufficient         = 10023
	codeStorage              = 10047
	codeWrongLastSequence    = 10071
	codeMessageTooLarge      = 10054
	codeBatchDuplicate       = 10201
	codeBatchIncomplete      = 10176
	codeBatchTooMany         = 10210
	codeNoResponders         = 503
	pubAckError              = `"error"`
	headerExpectedLastBySubj = "Nats-Expected-Last-Subject-Sequence"
	headerMsgID              = "Nats-Msg-Id"
)

// isCode tells whether an error is JetStream's with one of the codes.
func isCode(err error, codes ...int) bool {
	var e *apiError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.ErrCode == c {
			return true
		}
	}
	return false
}

// replies matches confirmations with what waits for them, over one subscription and without a goroutine for each.
type replies struct {
	nc     *nats.Conn
	prefix string

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]waiting
}

// waiting is told the outcome exactly once, on the subscription's goroutine or on that of the sweep: it must not block.
type waiting struct {
	who     confirmed
	subject string
	until   time.Time
}

// confirmed takes the outcome of one publish.
type confirmed interface {
	confirm(duplicate bool, err error)
}

func newReplies(c *connection) (*replies, error) {
	r := &replies{nc: c.nc, prefix: c.nc.NewInbox() + ".", waiting: map[uint64]waiting{}}
	sub, err := c.nc.Subscribe(r.prefix+"*", r.take)
	if err != nil {
		return nil, fmt.Errorf("subscribe to confirmations: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	c.listen(listener{
		down: func() { r.fail(errLost, func(waiting) bool { return true }) },
		denied: func(subject string) {
			err := fmt.Errorf("the broker does not allow publishing to %s: %w", subject, nats.ErrPermissionViolation)
			r.fail(err, func(w waiting) bool { return w.subject == subject })
		},
	})
	return r, nil
}

// publish a message and have its outcome told to who. An error means that it was not sent, and who is not told.
func (r *replies) publish(m *nats.Msg, who confirmed) (token uint64, err error) {
	r.mu.Lock()
	r.last++
	token = r.last
	r.waiting[token] = waiting{who, m.Subject, time.Now().Add(ackTimeout)}
	r.mu.Unlock()
	m.Reply = r.prefix + strconv.FormatUint(token, 36)
	if err = r.nc.PublishMsg(m); err != nil && r.forget(token) {
		return 0, err
	}
	return token, nil
}

// forget what waits; false when its outcome has been or is being told.
func (r *replies) forget(token uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.waiting[token]
	delete(r.waiting, token)
	return ok
}

func (r *replies) take(m *nats.Msg) {
	token, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
	if err != nil {
		return
	}
	r.mu.Lock()
	w, ok := r.waiting[token]
	delete(r.waiting, token)
	r.mu.Unlock()
	if ok {
		w.who.confirm(parseAck(m))
	}
}

// parseAck reads a JetStream PubAck: {"stream":"s","seq":1,"duplicate":true} or {"error":{...}}.
func parseAck(m *nats.Msg) (duplicate bool, err error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return false, &apiError{Code: 503, ErrCode: codeNoResponders, Description: "no stream takes the subject, or it has no leader"}
	}
	if bytes.Contains(m.Data, []byte(pubAckError)) {
		var answer struct {
			Error *apiError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return false, fmt.Errorf("the broker's confirmation: %w", err)
		}
		if answer.Error != nil {
			return false, answer.Error
		}
	}
	if !bytes.Contains(m.Data, []byte(`"seq"`)) {
		return false, fmt.Errorf("the broker's confirmation is %.100q", m.Data)
	}
	return bytes.Contains(m.Data, []byte(`"duplicate"`)), nil
}

// sweep tells those who waited too long.
func (r *replies) sweep(now time.Time) {
	r.fail(errTimeout, func(w waiting) bool { return now.After(w.until) })
}

func (r *replies) fail(err error, which func(waiting) bool) {
	var failed []waiting
	r.mu.Lock()
	for token, w := range r.waiting {
		if which(w) {
			delete(r.waiting, token)
			failed = append(failed, w)
		}
	}
	r.mu.Unlock()
	for _, w := range failed {
		w.who.confirm(false, err)
	}
}
