package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/telemetry"
)

const (
	// callTries is how often a call that is refused before it was begun is sent: another pod may take it.
	callTries = 3
	// refusedPause before the next try, twice as long each time, and half of it by chance.
	refusedPause = 4 * time.Millisecond
)

// caller is the sdk.Caller of a source: it takes requests through the Routes that end in services.
type caller struct {
	config  *contract.Config
	conn    *connection
	answers *answers
	metrics *callerMetrics
	log     *slog.Logger
	tracer  *telemetry.Tracer
	// self is this hop's name.
	self   string
	routes []*callRoute
	// steps: some Route looks at requests or answers.
	steps   bool
	started time.Time
	changed func()
}

// callRoute is a Route that ends in a service.
type callRoute struct {
	contract.Call
	filters, request, response []steps.Step
	subject, cancel            string
	// invalid: the Route cannot run at all.
	invalid error
	// metrics are nil where a step calls.
	metrics *callMetrics
	// absent is when the last call found nobody that takes requests; 0 once one did.
	absent atomic.Int64
}

func newCaller(c *contract.Config, conn *connection, r registry, log *slog.Logger, changed func()) (*caller, error) {
	all, err := newAnswers(conn)
	if err != nil {
		return nil, err
	}
	k := &caller{
		config: c, conn: conn, answers: all, metrics: newCallerMetrics(r), log: log, self: c.Connector.Namespace + "/" + c.Connector.Name,
		started: time.Now(), changed: changed,
	}
	for _, call := range c.Source.Calls {
		route := &callRoute{
			Call:    call,
			subject: contract.ServiceSubject(c.Connector.Namespace, call.Integration, call.Service),
			cancel:  contract.CancelSubject(c.Connector.Namespace, call.Integration, call.Service),
			metrics: k.metrics.route(call.Route),
		}
		if route.invalid = route.compile(); route.invalid != nil {
			log.Error("the route cannot run", "route", call.Route, "error", route.invalid)
		}
		k.steps = k.steps || len(call.Request)+len(call.Response) > 0
		k.routes = append(k.routes, route)
	}
	return k, nil
}

func (r *callRoute) compile() error {
	compile := func(list []contract.Step) (out []steps.Step, err error) {
		for _, s := range list {
			if s.Delay != nil || s.Throttle != nil || s.RecipientList != nil || s.LoadBalance != nil || s.Enrich != nil {
				return nil, fmt.Errorf("%s: a call has one service and no time to wait: only steps that look at a message or change it apply", s.Name)
			}
			c, err := steps.Compile(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			out = append(out, c)
		}
		return out, nil
	}
	leading := 0
	for leading < len(r.Request) && r.Request[leading].Filter != "" {
		leading++
	}
	all, err := compile(r.Request)
	if err != nil {
		return err
	}
	r.filters, r.request = all[:leading], all[leading:]
	r.response, err = compile(r.Response)
	return err
}

// MaxTimeout implements sdk.Caller.
func (k *caller) MaxTimeout() (longest time.Duration) {
	for _, r := range k.routes {
		longest = max(longest, time.Duration(r.Timeout))
	}
	return longest
}

// Call implements sdk.Caller.
func (k *caller) Call(ctx context.Context, r *sdk.Request) *sdk.Answer {
	begun := time.Now()
	k.metrics.inFlight.Inc()
	defer k.metrics.inFlight.Dec()
	if k.config.Source.Suspended {
		return hopProblem(http.StatusServiceUnavailable, k.self, "the connector is suspended: send it again later")
	}
	k.complete(r, begun)
	route, answer := k.pick(ctx, r)
	if answer != nil {
		k.metrics.unrouted.Inc()
		return answer
	}
	limited, stop := context.WithTimeout(ctx, time.Duration(route.Timeout))
	defer stop()
	span := k.tracer.Call(r.Headers[contract.HeaderTraceParent], r.Headers[contract.HeaderTraceState], route.Service, false)
	if parent := span.TraceParent(); parent != "" {
		r.Headers[contract.HeaderTraceParent] = parent
	}
	answer = k.exchange(limited, route, r)
	endCall(span, answer)
	route.metrics.observe(ctx, answer, time.Since(begun))
	return answer
}

// complete a request with what the bus knows of it.
func (k *caller) complete(r *sdk.Request, now time.Time) {
	m := &r.Message
	m.Type, m.Source, m.Format = k.config.Source.EventType, contract.SourceURI(k.config.Connector.Namespace, k.config.Connector.Name), k.config.Source.Format
	if m.Time.IsZero() {
		m.Time = now
	}
	if m.Headers == nil {
		m.Headers = make(map[string]string, 16)
	}
	if !validTraceParent(m.Headers[contract.HeaderTraceParent]) {
		delete(m.Headers, contract.HeaderTraceParent)
		delete(m.Headers, contract.HeaderTraceState)
		if k.tracer == nil {
			m.Headers[contract.HeaderTraceParent] = newTraceParent()
		}
	}
	if marking := k.config.Connector.Marking; marking != "" {
		m.Headers["marking"] = marking
	}
	if k.steps {
		r.Expose()
	}
}

// pick the first Route whose filters let the request pass.
func (k *caller) pick(ctx context.Context, r *sdk.Request) (*callRoute, *sdk.Answer) {
	for _, route := range k.routes {
		if route.invalid != nil {
			continue
		}
		pass, failed, err := steps.Run(ctx, route.filters, &r.Message)
		if err != nil {
			return nil, k.stepFailed(route, route.Request[failed], err)
		}
		if pass {
			return route, nil
		}
	}
	for _, route := range k.routes {
		if route.invalid != nil {
			return nil, hopProblem(http.StatusServiceUnavailable, k.self, "Route %s cannot run as it is configured: see its status", route.Route)
		}
	}
	return nil, hopProblem(http.StatusNotFound, k.self, "no Route takes this request")
}

// stepFailed is the answer to a request that a step cannot deal with.
func (k *caller) stepFailed(route *callRoute, s contract.Step, err error) *sdk.Answer {
	status := http.StatusBadRequest
	if errors.Is(err, steps.ErrLimit) {
		status = http.StatusServiceUnavailable
	}
	return hopProblem(status, k.self, "Route %s, %s: %v", route.Route, s.Name, err)
}

// exchange runs the Route: its steps, the call, its steps on the answer.
func (k *caller) exchange(ctx context.Context, route *callRoute, r *sdk.Request) *sdk.Answer {
	if route.Suspended {
		return hopProblem(http.StatusServiceUnavailable, k.self, "Route %s is suspended: send it again later", route.Route)
	}
	pass, failed, err := steps.Run(ctx, route.request, &r.Message)
	if failed += len(route.filters); err != nil {
		return k.stepFailed(route, route.Request[failed], err)
	}
	if !pass {
		return hopProblem(http.StatusUnprocessableEntity, k.self, "Route %s does not let this request pass", route.Route)
	}
	if k.steps {
		if err := r.Absorb(); err != nil {
			return hopProblem(http.StatusInternalServerError, k.self, "Route %s: its steps made a request that cannot be sent: %v", route.Route, err)
		}
	}
	answer, _ := k.send(ctx, route, r)
	if answer.Hop != "" || len(route.response) == 0 {
		return answer
	}
	changed := k.respond(ctx, route, r, answer)
	if changed != answer {
		answer.Close()
	}
	return changed
}

// respond runs the Route's steps on an answer of the system.
func (k *caller) respond(ctx context.Context, route *callRoute, r *sdk.Request, a *sdk.Answer) *sdk.Answer {
	m := &a.Message
	m.ID, m.Type, m.Source, m.Time = r.ID, r.Type, contract.SourceURI(k.config.Connector.Namespace, route.Service), time.Now()
	m.Headers[contract.HeaderTraceParent] = r.Headers[contract.HeaderTraceParent]
	a.Expose()
	pass, failed, err := steps.Run(ctx, route.response, m)
	if err != nil {
		return hopProblem(http.StatusBadGateway, k.self, "Route %s, %s: %v", route.Route, route.Response[failed].Name, err)
	}
	if !pass {
		return hopProblem(http.StatusBadGateway, k.self, "Route %s does not let the answer pass", route.Route)
	}
	if err := a.Absorb(); err != nil {
		return hopProblem(http.StatusBadGateway, k.self, "Route %s: its steps made an answer that cannot be given: %v", route.Route, err)
	}
	return a
}

// send the request until a pod takes it, or callTries have not. refused is why the call was not begun.
func (k *caller) send(ctx context.Context, route *callRoute, r *sdk.Request) (answer *sdk.Answer, refused string) {
	m, err := encodeRequest(route.subject, r)
	if errors.Is(err, errHeadersTooLarge) {
		return hopProblem(http.StatusRequestHeaderFieldsTooLarge, k.self, "the request: %v", err), ""
	}
	if err != nil {
		return hopProblem(http.StatusRequestEntityTooLarge, k.self, "the request: %v", err), ""
	}
	for try, pause := 1, refusedPause; ; try, pause = try+1, 2*pause {
		answer, refused = k.ask(ctx, route, m)
		if refused == "" || refused == contract.RefusedSuspended || try == callTries {
			if refused != "" && route.metrics != nil {
				route.metrics.refused.WithLabelValues(refused).Inc()
			}
			return answer, refused
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
			answer.Close()
		case <-ctx.Done():
			timer.Stop()
			return answer, refused
		}
	}
}

// ask once. refused is why the call was not begun.
func (k *caller) ask(ctx context.Context, route *callRoute, m *nats.Msg) (answer *sdk.Answer, refused string) {
	k.answers.enter(ctx)
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	if left <= 0 || ctx.Err() != nil {
		return k.late(ctx, route), ""
	}
	// The service gives up a moment before its caller does, so that it is its own answer that says where the time went.
	left -= min(left/20, 100*time.Millisecond)
	m.Header[contract.HeaderCallTimeout] = []string{strconv.FormatInt(max(1, left.Milliseconds()), 10)}
	token, reply, w := k.answers.wait(route.subject)
	m.Reply = reply
	if err := k.conn.nc.PublishMsg(m); err != nil {
		k.answers.forget(token, w)
		k.log.Debug("a call cannot be sent", "route", route.Route, "error", err)
		return hopProblem(http.StatusServiceUnavailable, k.self, "the bus cannot be reached: send it again"), contract.RefusedUnavailable
	}
	select {
	case got := <-w.answer:
		return k.answered(route, got)
	case <-ctx.Done():
		k.answers.forget(token, w)
		_ = k.conn.nc.Publish(route.cancel, []byte(reply)) // it may have been done already
		return k.late(ctx, route), ""
	}
}

// late is the answer when the time is up. A caller that has given up does not read it.
func (k *caller) late(ctx context.Context, route *callRoute) *sdk.Answer {
	if errors.Is(ctx.Err(), context.Canceled) {
		return hopProblem(http.StatusServiceUnavailable, k.self, "the caller has given up")
	}
	return hopProblem(http.StatusGatewayTimeout, k.self, "service %s has not answered in time: the call may have been done", route.Service)
}

func (k *caller) answered(route *callRoute, got answered) (answer *sdk.Answer, refused string) {
	switch {
	case errors.Is(got.err, errNoResponders):
		if route.absent.Swap(time.Now().UnixNano()) == 0 {
			k.changed()
		}
		return hopProblem(http.StatusServiceUnavailable, k.self, "no pod of service %s takes requests: send it again later", route.Service), ""
	case errors.Is(got.err, nats.ErrPermissionViolation):
		return hopProblem(http.StatusServiceUnavailable, k.self, "this connector may not call service %s yet: send it again later", route.Service), ""
	case errors.Is(got.err, errAnswersHeld):
		return hopProblem(http.StatusBadGateway, k.self, "the answer of service %s was let go, for too many large ones are on their way: the call has been done", route.Service), ""
	case got.err != nil:
		return hopProblem(http.StatusBadGateway, k.self, "the connection to the bus broke before service %s answered: the call may have been done", route.Service), ""
	}
	k.conn.worked()
	if route.absent.Swap(0) != 0 {
		k.changed()
	}
	size := len(got.msg.Data)
	answer, refused, err := decodeAnswer(got.msg)
	if err != nil {
		k.answers.free(size)
		return hopProblem(http.StatusBadGateway, k.self, "the answer of service %s is malformed: %v", route.Service, err), ""
	}
	answer.Free = func() { k.answers.free(size) }
	return answer, refused
}

// absentForgotten is when a service that nobody has called since is no longer reported as absent.
const absentForgotten = time.Minute

// states of the Routes that cannot serve.
func (k *caller) states() (out []contract.RouteState) {
	for _, r := range k.routes {
		absent := time.Unix(0, r.absent.Load())
		switch {
		case r.invalid != nil:
			out = append(out, contract.RouteState{Route: r.Route, Destination: contract.CallDestination, State: state(r.invalid, contract.ReasonSystemError, k.started)})
		case time.Since(absent) < absentForgotten:
			err := fmt.Errorf("no pod of service %s takes requests", r.Service)
			out = append(out, contract.RouteState{Route: r.Route, Destination: contract.CallDestination, State: state(err, contract.ReasonConnectionFailed, absent)})
		}
	}
	return out
}
