package loopback

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
)

// DeduplicationWindow of the streams: the API's default.
const DeduplicationWindow = 5 * time.Minute

// Delivery of a Route that leaves everything out.
func Delivery() contract.Delivery { return compile.Delivery() }

// Flow is a source, a Route and a sink in an Integration of their own.
type Flow struct{ Integration, Source, Route, Destination, Sink string }

// Stream of the flow's messages.
func (f Flow) Stream() string { return contract.EventStream(Namespace, f.Integration) }

// Durable of the flow's Route.
func (f Flow) Durable() string { return contract.DurableName(Namespace, f.Route, f.Destination) }

// Users of a flow, in NATS .creds format.
type Users struct{ Source, Sink []byte }

// Limits of a flow's streams.
type Limits struct {
	MaxBytes, DeadMaxBytes int64
	Retention              time.Duration
	DeduplicationWindow    time.Duration
	// ClaimsMaxBytes is 0 for no claim checks.
	ClaimsMaxBytes int64
}

// DefaultLimits are large, for a flow that is measured.
func DefaultLimits() Limits {
	return Limits{MaxBytes: 8 << 30, DeadMaxBytes: 128 << 20, Retention: 24 * time.Hour, DeduplicationWindow: DeduplicationWindow}
}

// Prepare makes the streams, the durable consumer and the users of a flow, as the operator's controllers do. Others are further flows
// between the same Connectors.
func (b *Broker) Prepare(ctx context.Context, l Limits, f Flow, others ...Flow) (u Users, err error) {
	session, err := b.registry.Session(b.name())
	if err != nil {
		return u, err
	}
	if _, err = session.EnsureStreams(ctx, bus.Streams{
		Namespace: Namespace, Integration: f.Integration, UID: types.UID(f.Integration),
		MaxBytes: l.MaxBytes, DeadMaxBytes: l.DeadMaxBytes, Retention: l.Retention, DeduplicationWindow: l.DeduplicationWindow,
		ClaimsMaxBytes: l.ClaimsMaxBytes,
	}); err != nil {
		return u, err
	}
	var destinations []contract.SinkDestination
	for _, f := range append([]Flow{f}, others...) {
		if _, err = session.EnsureDurable(ctx, bus.Durable{
			Stream: f.Stream(), Name: f.Durable(),
			Filters: []string{
				contract.EventFilter(Namespace, f.Integration, f.Source, ""),
				contract.ReplayFilter(Namespace, f.Integration, f.Route, f.Destination),
				contract.MarkSubject(Namespace, f.Integration),
			},
			Start: time.Now(), RouteUID: types.UID(f.Route), Route: f.Route, Destination: f.Destination, AckWait: compile.AckWait,
		}); err != nil {
			return u, err
		}
		destinations = append(destinations, contract.SinkDestination{Integration: f.Integration, Route: f.Route, Destination: f.Destination, Sources: []string{f.Source}})
	}
	permissions := contract.SourcePermissions(Namespace, f.Integration, f.Source)
	if l.ClaimsMaxBytes > 0 {
		permissions = permissions.WithClaims(Namespace, f.Integration, f.Source)
	}
	source, err := session.IssueUser(contract.UserName(Namespace, f.Source), permissions, lifetime)
	if err != nil {
		return u, err
	}
	sink, err := session.IssueUser(contract.UserName(Namespace, f.Sink), contract.SinkPermissions(Namespace, f.Sink, destinations), lifetime)
	return Users{Source: source.Creds, Sink: sink.Creds}, err
}

// Purge removes what a flow has stored.
func (b *Broker) Purge(ctx context.Context, f Flow) error {
	stream, err := b.js.Stream(ctx, f.Stream())
	if err != nil {
		return err
	}
	return stream.Purge(ctx)
}
