package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// relayBatch is how many messages of a destination are published at a time.
const relayBatch = 250

// errHopLimit: Routes feed each other in a circle.
var errHopLimit = fmt.Errorf("it has passed the relay %d times: Routes feed each other in a circle", contract.MaxHops)

// relaySink is the system of a relay: the bus. What Routes deliver to an event it publishes into the Integration's own stream, under the
// relay's subjects, and it calls a message delivered once the broker has confirmed it. An id that is the same for every attempt lets the
// broker recognise, within its window, what was published by a pod that died before it could acknowledge.
type relaySink struct {
	publisher *publisher
	conn      *connection
	who       contract.Connector
	log       *slog.Logger
	// work lasts as long as the pod does; what waits in documents is seen to meanwhile.
	work context.Context //nolint:containedctx // see keeping
	// states is made when a destination needs it.
	states *stateStore
}

// newRelaySink publishes until work ends.
func newRelaySink(work context.Context, e *Engine) *relaySink {
	p := newBarePublisher(e.Config, e.conn, e.replies, newSourceMetrics(e.registry), e.reports.changed)
	if p.batches != nil {
		go p.batches.run(work.Done())
	}
	return &relaySink{publisher: p, conn: e.conn, who: e.Config.Connector, log: e.Log, work: work}
}

func (s *relaySink) stateStore() *stateStore {
	if s.states == nil {
		s.states = newStateStore(s.conn.nc, contract.StateStream(s.who.Namespace, s.who.Integration))
	}
	return s.states
}

// Operation implements sdk.Sink. A relay has none of its own: see operation.
func (s *relaySink) Operation(json.RawMessage) (sdk.Operation, error) {
	return nil, errors.New("an event needs its Route")
}

// Check implements sdk.Sink. Whether the stream has room is found out by publishing.
func (s *relaySink) Check(context.Context) error {
	if !s.conn.isUp() {
		return sdk.Unavailable(contract.ReasonBrokerUnreachable, errors.New("the broker is away"))
	}
	return nil
}

// Close implements sdk.Sink.
func (s *relaySink) Close() error { return nil }

// operation of one destination that is an event or a table.
func (s *relaySink) operation(r contract.Route) (sdk.Operation, error) {
	var event contract.EventOperation
	if err := sdk.DecodeOptions(r.Operation, &event); err != nil {
		return nil, err
	}
	if (event.Type == "") == (event.Table == nil) {
		return nil, errors.New("it is neither an event nor a table, or both")
	}
	o := &relayOperation{
		sink: s, route: r.Name, destination: r.Destination, eventType: event.Type, marking: escapeHeader(s.who.Marking),
		source: contract.RelaySource(s.who.Namespace, r.Integration, r.Name, r.Destination),
	}
	if event.Table != nil {
		return s.tableOperation(o, *event.Table, r.Integration)
	}
	for slot := range o.subjects {
		o.subjects[slot] = contract.EventSubject(s.who.Namespace, r.Integration, contract.RelayToken, slot, event.Type)
	}
	s.leftovers(o, r)
	if r.Stateful() != nil {
		return s.stateful(o, r)
	}
	return o, nil
}

// relayOperation publishes the messages of one destination.
type relayOperation struct {
	sink                                           *relaySink
	route, destination, eventType, source, marking string
	subjects                                       [contract.Slots]string
}

// MaxBatch implements sdk.Operation.
func (o *relayOperation) MaxBatch() int { return relayBatch }

// Write implements sdk.Operation.
func (o *relayOperation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results, positions := make([]error, len(batch)), make([]int, 0, len(batch))
	p, begun := o.sink.publisher, time.Now()
	g := p.groups.Get().(*group)
	defer p.groups.Put(g)
	if cap(g.items) < len(batch) {
		g.items = make([]publication, len(batch))
	}
	g.items = g.items[:len(batch)]
	defer g.release()
	for i, m := range batch {
		item := &g.items[len(positions)]
		item.publisher, item.group, item.err, item.stored, item.alone = p, g, nil, false, false
		if err := o.encode(&item.encoded, m, begun); err != nil {
			results[i] = sdk.Permanent(err)
			continue
		}
		positions = append(positions, i)
	}
	g.items = g.items[:len(positions)]
	if len(positions) == 0 {
		return results
	}
	err := p.publish(ctx, g, begun)
	for n, i := range positions {
		switch item := &g.items[n]; {
		case item.stored:
			p.metrics.published.Inc()
			if item.duplicate {
				p.metrics.duplicates.Inc()
			}
		case item.err != nil:
			results[i] = o.failure(item.err)
		default:
			results[i] = o.failure(err)
		}
	}
	if err == nil {
		p.metrics.latency.Observe(time.Since(begun).Seconds())
	}
	return results
}

// failure in the engine's terms: the bus is one system, and what it cannot take now waits where it is.
func (o *relayOperation) failure(err error) error {
	switch err = classify(err); {
	case errors.Is(err, sdk.ErrFull):
		return sdk.Unavailable(contract.ReasonStreamFull, fmt.Errorf("the bus of Integration %s is full: find the Route that is behind, or raise spec.retention.size", o.sink.who.Integration))
	case errors.Is(err, sdk.ErrInvalid):
		return sdk.Permanent(err)
	case errors.Is(err, context.Canceled):
		return err
	default:
		return sdk.Unavailable(contract.ReasonBrokerUnreachable, err)
	}
}

// isBus tells failures of the bus itself, its tables among it, which are never a message's own fault.
func isBus(err error) bool {
	var u *sdk.UnavailableError
	return errors.As(err, &u) && (u.Reason == contract.ReasonStreamFull || u.Reason == contract.ReasonTableFull || u.Reason == contract.ReasonBrokerUnreachable)
}

// encode a message as the event that it becomes. Id, subject, time, partition key, marking, trace and extensions stay; type and source
// become the relay's. The original's source follows the relay's, so that source and id together stay unique.
func (o *relayOperation) encode(out *encoded, m *sdk.Delivery, now time.Time) error {
	out.reset()
	if m.Hops >= contract.MaxHops {
		return errHopLimit
	}
	if len(m.Data) > contract.MaxMessageSize {
		return fmt.Errorf("its body has %d bytes, and %d are allowed", len(m.Data), contract.MaxMessageSize)
	}
	key := m.PartitionKey
	if key == "" {
		key = m.ID
	}
	out.Subject, out.Data = o.subjects[contract.Slot(key)], m.Data
	out.set(headerMsgID, escapeHeader(contract.RelayMessageID(o.route, o.destination, m.MessageID, 0)))
	out.set(contract.HeaderSpecVersion, contract.SpecVersion)
	out.set(contract.HeaderID, escapeHeader(m.ID))
	out.set(contract.HeaderType, o.eventType)
	out.set(contract.HeaderSource, escapeHeader(o.source+m.Source))
	out.set(contract.HeaderHops, strconv.Itoa(m.Hops+1))
	at := m.Time
	if at.IsZero() {
		at = now
	}
	out.set(contract.HeaderTime, at.UTC().Format(time.RFC3339Nano))
	for _, h := range [...]struct{ name, value string }{
		{contract.HeaderFormat, cmp.Or(m.Format, sdk.FormatJSON)},
		{contract.HeaderAccepted, cmp.Or(m.Accepted, now.UTC().Format(time.RFC3339Nano))},
		{contract.HeaderSubject, escapeHeader(m.Subject)},
		{contract.HeaderContentType, m.ContentType},
		{contract.HeaderPartitionKey, escapeHeader(m.PartitionKey)},
		{contract.HeaderHistory, m.History},
	} {
		if h.value != "" {
			out.set(h.name, h.value)
		}
	}
	o.extensions(out, m)
	if out.size > contract.MaxHeaderSize-1024 {
		return fmt.Errorf("its attributes take %d bytes, and %d are allowed", out.size, contract.MaxHeaderSize-1024)
	}
	out.size += len(out.Data)
	return nil
}

func (o *relayOperation) extensions(out *encoded, m *sdk.Delivery) {
	trace, marked := "", false
	for name, value := range m.Headers {
		switch {
		case name == contract.HeaderTraceParent:
			trace = value
		case name == contract.HeaderTraceState:
			out.set(name, value)
		case name == "partitionkey", isBroker(name):
		default:
			marked = marked || name == strings.TrimPrefix(contract.HeaderMarking, contract.HeaderExtensionPrefix)
			out.set(contract.HeaderExtensionPrefix+name, escapeHeader(value))
		}
	}
	if !marked && o.marking != "" {
		out.set(contract.HeaderMarking, o.marking)
	}
	if !validTraceParent(trace) {
		trace = newTraceParent()
	}
	out.set(contract.HeaderTraceParent, trace)
}
