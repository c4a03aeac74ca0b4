package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	// directReply is RabbitMQ's queue for replies that is none: the reply goes to the channel that asked.
	directReply  = "amq.rabbitmq.reply-to"
	headerStatus = contract.HeaderCallStatus
)

// service asks over an exchange, and waits for the reply.
type service struct {
	holder      *cluster.Holder[*link]
	exchange    string
	key         *steps.Template
	contentType string

	mu      sync.Mutex
	current *asker
	turn    chan struct{}
	serial  atomic.Uint64
}

// NewService makes a service of the JSON of the API's RabbitMQService.
func NewService(rt sdk.Runtime, raw json.RawMessage) (sdk.Service, error) {
	o, err := decodeService(raw)
	if err != nil {
		return nil, err
	}
	d, err := newDialer(rt, &o.Connection)
	if err != nil {
		return nil, err
	}
	s := &service{holder: newHolder(d, &o.Connection), exchange: o.Exchange, contentType: o.ContentType, turn: make(chan struct{}, 1)}
	if s.key, err = steps.CompileTemplate(o.RoutingKey); err != nil {
		return nil, fmt.Errorf("routingKey: %w", err)
	}
	return s, nil
}

// Check asks the server for a sign of life. Whether anybody answers only calls can tell.
func (s *service) Check(ctx context.Context) error { return check(ctx, s.holder) }

// Close the connection.
func (s *service) Close() error {
	s.holder.Close()
	return nil
}

var errNobody = errors.New("nobody at the system answers: no queue takes the request")

// asker is a channel with its replies.
type asker struct {
	*amqp.Channel
	link *link
	// sending: the library's channels are one caller's at a time.
	sending sync.Mutex

	mu      sync.Mutex
	waiting map[string]chan outcome
	// over is closed with the channel; cause is why, and set before.
	over  chan struct{}
	cause error
}

type outcome struct {
	reply amqp.Delivery
	err   error
}

// asker on the present connection. The connection is held while the channel lasts.
func (s *service) asker(ctx context.Context) (*asker, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l, err := s.holder.Get(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	a := s.current
	s.mu.Unlock()
	if a != nil && a.link == l && !a.IsClosed() {
		s.holder.Release(l)
		return a, nil
	}
	a, err = newAsker(ctx, l)
	if err != nil {
		s.holder.Release(l)
		return nil, err
	}
	go func() {
		<-a.over
		s.holder.Release(l)
	}()
	s.mu.Lock()
	former := s.current
	s.current = a
	s.mu.Unlock()
	if former != nil {
		former.retire()
	}
	return a, nil
}

func newAsker(ctx context.Context, l *link) (*asker, error) {
	a := &asker{link: l, waiting: map[string]chan outcome{}, over: make(chan struct{})}
	var replies <-chan amqp.Delivery
	err := l.within(ctx, func() (err error) {
		if a.Channel, err = l.Channel(); err != nil {
			return err
		}
		replies, err = a.Consume(directReply, "", true, false, false, false, nil)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unavailable(l.endpoint, err)
	}
	go a.run(replies, a.NotifyReturn(make(chan amqp.Return, 64)), a.NotifyClose(make(chan *amqp.Error, 1)))
	return a, nil
}

func (a *asker) run(replies <-chan amqp.Delivery, returns <-chan amqp.Return, closed <-chan *amqp.Error) {
	defer close(a.over)
	for {
		select {
		case r, ok := <-replies:
			if ok {
				a.finish(r.CorrelationId, outcome{reply: r})
				continue
			}
			replies = nil
		case r, ok := <-returns:
			if ok {
				a.finish(r.CorrelationId, outcome{err: &sdk.CallError{Status: http.StatusServiceUnavailable, Err: errNobody}})
				continue
			}
			returns = nil
		case err := <-closed:
			a.fail(err)
			return
		}
	}
}

// fail all who wait: whether their requests were worked on is not known.
func (a *asker) fail(err *amqp.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.cause = errors.New("the connection is closed")
	case err.Server && err.Code != amqp.ConnectionForced:
		a.cause = sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %s", a.link.endpoint, describe(err)))
	default:
		a.cause = fmt.Errorf("%s: %s", a.link.endpoint, describe(err))
	}
	for _, c := range a.waiting {
		c <- outcome{err: a.cause}
	}
	clear(a.waiting)
}

func (a *asker) finish(id string, o outcome) {
	a.mu.Lock()
	c := a.waiting[id]
	delete(a.waiting, id)
	a.mu.Unlock()
	if c != nil {
		c <- o
	}
}

// retire when nobody waits any more.
func (a *asker) retire() {
	go func() {
		for {
			a.mu.Lock()
			n := len(a.waiting)
			a.mu.Unlock()
			if n == 0 {
				break
			}
			select {
			case <-a.over:
				return
			case <-time.After(time.Second):
			}
		}
		_ = a.Close()
	}()
}

// Call implements sdk.Service.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	if err := r.Check(); err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	key, err := s.keyOf(r)
	if err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: fmt.Errorf("routingKey: %w", err)}
	}
	a, err := s.asker(ctx)
	if err != nil {
		return nil, err
	}
	if reason := a.link.blocked.Load(); reason != nil {
		return nil, blockedError(a.link.endpoint, *reason)
	}
	id := strconv.FormatUint(s.serial.Add(1), 36)
	answered := make(chan outcome, 1)
	a.mu.Lock()
	if err := a.cause; err != nil {
		a.mu.Unlock()
		return nil, unavailable(a.link.endpoint, err)
	}
	a.waiting[id] = answered
	a.mu.Unlock()
	defer a.finish(id, outcome{})
	p := requestOf(ctx, r)
	p.CorrelationId, p.ReplyTo = id, directReply
	err = a.link.within(ctx, func() error {
		a.sending.Lock()
		defer a.sending.Unlock()
		return a.Publish(s.exchange, key, true, false, p)
	})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		if lost := a.link.Alive(); lost != nil {
			return nil, lost
		}
		return nil, fmt.Errorf("%s: %s", a.link.endpoint, describe(err))
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case o := <-answered:
		if o.err != nil {
			return nil, o.err
		}
		return s.answer(ctx, r, &o.reply)
	}
}

// keyOf a request. A value that is inserted is one word of the key: it cannot lead elsewhere.
func (s *service) keyOf(r *sdk.Request) (string, error) {
	shown := *r
	shown.Headers = make(map[string]string, len(r.Headers)+8)
	for name, value := range r.Headers {
		shown.Headers[name] = value
	}
	shown.Expose()
	bad := false
	key, err := s.key.Expand(&shown.Message, func(value string) string {
		bad = bad || value == "" || strings.ContainsAny(value, ".*#") || !binding.Clean(value)
		return value
	})
	switch {
	case err != nil:
		return "", err
	case bad || len(key) > maxShort:
		return "", errors.New("a value that is inserted is empty, too long, or holds what one word of a routing key cannot")
	}
	return key, nil
}

func requestOf(ctx context.Context, r *sdk.Request) amqp.Publishing {
	h := make(amqp.Table, len(r.Header)+8)
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "x-delay") && len(name) <= 128 {
			h[contract.HeaderCallHTTP+name] = strings.Join(values, ", ")
		}
	}
	set := func(name, value string) {
		if value != "" {
			h[name] = value
		}
	}
	set(contract.HeaderCallMethod, r.Method)
	set(contract.HeaderCallPath, r.Path)
	set(contract.HeaderCallQuery, r.Query)
	set(contract.HeaderTraceParent, r.Headers[contract.HeaderTraceParent])
	set(contract.HeaderTraceState, r.Headers[contract.HeaderTraceState])
	p := amqp.Publishing{Headers: h, DeliveryMode: amqp.Transient, AppId: "metip", Body: r.Data}
	if len(r.ContentType) <= maxShort {
		p.ContentType = r.ContentType
	}
	if deadline, ok := ctx.Deadline(); ok { // a request that nobody waits for is not worked on
		left := strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)
		p.Expiration = left
		set(contract.HeaderCallTimeout, left)
	}
	return p
}

func (s *service) answer(ctx context.Context, r *sdk.Request, d *amqp.Delivery) (*sdk.Answer, error) {
	if len(d.Body) > contract.MaxMessageSize {
		return nil, sdk.CallErrorf(http.StatusBadGateway, "the system's answer is larger than %d bytes, which is the most that the bus carries", contract.MaxMessageSize)
	}
	if r.Reserve != nil {
		if err := r.Reserve(ctx, len(d.Body)); err != nil {
			return nil, err
		}
	}
	a := &sdk.Answer{Status: http.StatusOK, Header: make(map[string][]string, len(d.Headers))}
	for header, raw := range d.Headers {
		value, ok := binding.Text(raw)
		if !ok || !binding.Clean(value) {
			continue
		}
		lower := strings.ToLower(header)
		switch name, carried := strings.CutPrefix(lower, contract.HeaderCallHTTP); {
		case lower == headerStatus:
			status, err := strconv.Atoi(value)
			if err != nil || status < 200 || status > 599 {
				status = http.StatusInternalServerError
			}
			a.Status = status
		case carried:
			a.Header[name] = []string{value}
		}
	}
	if a.ContentType = d.ContentType; a.ContentType == "" || !binding.Printable(a.ContentType) {
		a.ContentType = s.contentType
	}
	a.Format, a.Data = sdk.FormatOf(a.ContentType), d.Body
	return a, nil
}
