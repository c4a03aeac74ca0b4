package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/openapi"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/telemetry"
)

const (
	// maxHeldRequests and maxHeldCallAnswers are what all calls of a pod may hold, in bytes. Each has room for a few of the largest.
	maxHeldRequests    = 32 << 20
	maxHeldCallAnswers = 32 << 20
)

// Causes of a call's end that is not its deadline.
var (
	errCallCancelled = errors.New("the caller has given up")
	errShuttingDown  = errors.New("the pod is shutting down")
)

// serviceRunner runs a service: it takes requests in turn with the other pods, and answers each once.
type serviceRunner struct {
	config  *contract.Config
	log     *slog.Logger
	conn    *connection
	secrets *secrets
	metrics *serviceMetrics
	service sdk.Service
	system  *systemState
	tracer  *telemetry.Tracer
	// work ends when what is being done has to stop.
	work context.Context
	// stopping is closed when no more requests are taken.
	stopping <-chan struct{}
	self     string
	timeout  time.Duration
	breaker  breaker
	cache    *callCache
	// document is nil where nothing is asked of calls.
	document *openapi.Document

	requests, answers *semaphore.Weighted
	running           sync.WaitGroup
	inFlight          atomic.Int64
	// generation of the connection: what came over an earlier one cannot be answered any more.
	generation atomic.Int64

	mu sync.Mutex
	// byReply ends a call when its caller gives up.
	byReply map[string]context.CancelCauseFunc
	// requestsSub is nil while no requests are taken.
	requestsSub *subscription
}

func newServiceRunner(work context.Context, c *contract.Config, s sdk.Service) (*serviceRunner, error) {
	r := &serviceRunner{
		config: c, service: s, work: work, self: c.Connector.Namespace + "/" + c.Connector.Name, timeout: time.Duration(c.Service.Timeout),
		requests: semaphore.NewWeighted(maxHeldRequests), answers: semaphore.NewWeighted(maxHeldCallAnswers), byReply: map[string]context.CancelCauseFunc{},
	}
	if cache := c.Service.Cache; cache != nil && cache.MaxBytes > 0 && cache.TTL > 0 {
		r.cache = newCallCache(*cache)
	}
	r.breaker.runner = r
	if text := c.Service.OpenAPI; text != "" {
		var err error
		if r.document, err = openapi.Compile(text); err != nil {
			return nil, fmt.Errorf("the OpenAPI document: %w", err)
		}
	}
	return r, nil
}

// run until ctx ends, then take no more requests, and answer those that were taken.
func (r *serviceRunner) run(ctx context.Context, ready func()) error {
	c := r.config.Connector
	r.stopping = ctx.Done()
	cancels, err := r.conn.nc.Subscribe(contract.CancelSubject(c.Namespace, c.Integration, c.Name), func(m *nats.Msg) { r.cancel(string(m.Data)) })
	if err != nil {
		return fmt.Errorf("subscribe to cancellations: %w", err)
	}
	if err := r.subscribe(); err != nil {
		return err
	}
	r.conn.listen(listener{down: r.lost, settle: r.settle, up: func() {
		if err := r.subscribe(); err != nil {
			r.log.Error("requests are not taken", "error", err)
		}
	}})
	go r.ready(ctx, ready)
	r.watchSystem(ctx)
	r.unsubscribe(r.work.Done())
	r.running.Wait()
	_ = cancels.Unsubscribe()
	return nil
}

// take a request. It never waits: a request that there is no room for is refused, and its caller tries another pod.
func (r *serviceRunner) take(m *nats.Msg) {
	// Nothing checks where a caller wants its answer: it could have it published as somebody's message.
	if !strings.HasPrefix(m.Reply, contract.ReplyPrefix) || strings.ContainsAny(m.Reply, "*> \t") {
		r.metrics.refused.WithLabelValues("malformed").Inc()
		r.log.Debug("a request with nowhere to answer to is ignored", "reply", m.Reply)
		return
	}
	if r.config.Service.Suspended {
		r.refuse(m, contract.RefusedSuspended, hopProblem(http.StatusServiceUnavailable, r.self, "the service is suspended: send it again later"))
		return
	}
	if r.inFlight.Add(1) > int64(r.config.Service.MaxConcurrent) || !r.requests.TryAcquire(int64(len(m.Data))) {
		r.inFlight.Add(-1)
		r.refuse(m, contract.RefusedBusy, hopProblem(http.StatusServiceUnavailable, r.self, "the service has as many calls under way as it may: send it again"))
		return
	}
	r.running.Add(1)
	r.metrics.inFlight.Inc()
	go r.handle(m, time.Now(), r.generation.Load())
}

func (r *serviceRunner) refuse(m *nats.Msg, why string, a *sdk.Answer) {
	r.metrics.refused.WithLabelValues(why).Inc()
	r.publish(m.Reply, a, why)
}

// handle a request from decoding to its answer.
func (r *serviceRunner) handle(m *nats.Msg, begun time.Time, generation int64) {
	defer func() {
		r.requests.Release(int64(len(m.Data)))
		r.metrics.inFlight.Dec()
		r.inFlight.Add(-1)
		r.running.Done()
	}()
	request, timeout, err := decodeRequest(m)
	if err != nil {
		r.metrics.refused.WithLabelValues("malformed").Inc()
		r.publish(m.Reply, hopProblem(http.StatusBadRequest, r.self, "the request is malformed: %v", err), "")
		return
	}
	if timeout == 0 || timeout > r.timeout {
		timeout = r.timeout
	}
	ctx, stop := context.WithTimeout(r.work, timeout)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.register(m.Reply, cancel)
	defer r.register(m.Reply, nil)
	if generation != r.generation.Load() {
		cancel(errLost) // before it was registered
	}
	reserved := 0
	defer func() { r.answers.Release(int64(reserved)) }()
	request.Reserve = func(ctx context.Context, n int) error {
		if reserved > 0 || n > maxHeldCallAnswers {
			return errors.New("room for an answer is reserved once, and there is not that much")
		}
		if err := r.answers.Acquire(ctx, int64(n)); err != nil {
			return err
		}
		reserved = n
		return nil
	}
	span := r.tracer.Call(request.Headers[contract.HeaderTraceParent], request.Headers[contract.HeaderTraceState], r.config.Connector.Name, true)
	if parent := span.TraceParent(); parent != "" {
		request.Headers[contract.HeaderTraceParent] = parent
	}
	answer, outcome, refused := r.answer(ctx, request, begun)
	endCall(span, answer)
	r.metrics.latency.Observe(time.Since(begun).Seconds())
	if refused != "" {
		r.metrics.refused.WithLabelValues(refused).Inc()
	} else {
		r.metrics.calls.WithLabelValues(outcome).Inc()
	}
	if outcome != outcomeCancelled && generation == r.generation.Load() {
		r.publish(m.Reply, answer, refused)
	}
	if answer != nil {
		answer.Close()
	}
}

// answer a request from the cache, or by a call.
func (r *serviceRunner) answer(ctx context.Context, request *sdk.Request, begun time.Time) (a *sdk.Answer, outcome, refused string) {
	var operation *openapi.Operation
	if r.document != nil {
		var err error
		if operation, err = r.document.Request(ctx, request); err != nil {
			return r.failed(ctx, request, err)
		}
	}
	var key cacheKey
	cached := r.cache != nil && r.cache.takes(request)
	if cached {
		key = keyOf(request)
		if a := r.cache.get(key, begun); a != nil {
			return a, outcomeCached, ""
		}
	}
	trial, ok := r.breaker.admit()
	if !ok {
		return r.unavailable(), outcomeProblem, contract.RefusedUnavailable
	}
	a, err := r.call(ctx, request)
	r.breaker.done(trial, r.verdict(ctx, err, begun))
	if err != nil {
		return r.failed(ctx, request, err)
	}
	if a == nil || a.Check() != nil {
		r.log.Error("the system's answer is malformed")
		return hopProblem(http.StatusBadGateway, r.self, "the system's answer is malformed"), outcomeProblem, ""
	}
	if operation != nil {
		if err := operation.Answer(ctx, request.Method, a); err != nil {
			a.Close()
			return hopProblem(http.StatusBadGateway, r.self, "the system's answer does not follow the service's OpenAPI document: %v", err), outcomeProblem, ""
		}
	}
	if cached {
		r.cache.put(key, a, time.Now())
	}
	if a.Status >= 500 {
		return a, outcomeError, ""
	}
	return a, outcomeAnswered, ""
}

// call the system. A panic is its error.
func (r *serviceRunner) call(ctx context.Context, request *sdk.Request) (a *sdk.Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("the system's call panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			a, err = nil, sdk.CallErrorf(http.StatusBadGateway, "the connector failed on this call: see its log")
		}
	}()
	return r.service.Call(ctx, request)
}

func (r *serviceRunner) unavailable() *sdk.Answer {
	return hopProblem(http.StatusServiceUnavailable, r.self, "the system behind the service cannot be reached: send it again later (the Connector's status says more)")
}

// failed is the answer to a call that the system has not answered. What the error says is for the log and the status: it may name addresses.
func (r *serviceRunner) failed(ctx context.Context, request *sdk.Request, err error) (a *sdk.Answer, outcome, refused string) {
	var call *sdk.CallError
	var down *sdk.UnavailableError
	cause := context.Cause(ctx)
	r.log.Debug("a call has failed", "id", request.ID, "method", request.Method, "error", err)
	switch {
	case errors.Is(cause, errCallCancelled) || errors.Is(cause, errLost):
		return nil, outcomeCancelled, ""
	case errors.As(err, &call):
		return hopProblem(call.Status, r.self, "%v", call.Err), outcomeProblem, ""
	case errors.Is(cause, context.DeadlineExceeded):
		return hopProblem(http.StatusGatewayTimeout, r.self, "the system has not answered in time: the call may have been done"), outcomeTimeout, ""
	case cause != nil:
		return hopProblem(http.StatusBadGateway, r.self, "the pod was shut down before the system answered: the call may have been done"), outcomeProblem, ""
	case errors.As(err, &down) && down.Reason == contract.ReasonAuthenticationFailed:
		return hopProblem(http.StatusBadGateway, r.self, "the system does not accept the Connector's credentials"), outcomeProblem, ""
	case errors.As(err, &down):
		return r.unavailable(), outcomeProblem, contract.RefusedUnavailable
	default:
		return hopProblem(http.StatusBadGateway, r.self, "the connection to the system broke before it answered: the call may have been done"), outcomeProblem, ""
	}
}

// publish an answer.
func (r *serviceRunner) publish(reply string, a *sdk.Answer, refused string) {
	m, err := encodeAnswer(reply, a, refused)
	if err != nil {
		r.log.Warn("an answer cannot be sent", "error", err)
		m, _ = encodeAnswer(reply, hopProblem(http.StatusBadGateway, r.self, "the system's answer cannot be carried: %v", err), "")
	}
	if err := r.conn.nc.PublishMsg(m); err != nil {
		r.log.Debug("an answer cannot be sent: its caller's time runs out", "error", err)
	}
}
