package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
)

// maxAckPending messages of a durable consumer may be delivered and not acknowledged: a slow destination holds no more than that.
const maxAckPending = 2000

// pausedUntil is far enough away to mean "until resumed".
var pausedUntil = time.Date(2999, time.January, 1, 0, 0, 0, 0, time.UTC)

// EnsureDurable implements Session.
func (s *session) EnsureDurable(ctx context.Context, want Durable) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	changed, err := s.ensureDurable(ctx, want)
	if err != nil {
		return changed, fmt.Errorf("durable consumer %s of stream %s: %w", want.Name, want.Stream, explain(err))
	}
	return changed, nil
}

func (s *session) ensureDurable(ctx context.Context, want Durable) (bool, error) {
	unlock := s.trimmer.lock(want.Stream)
	defer unlock()
	consumer, err := s.js.Consumer(ctx, want.Stream, want.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = s.js.CreateConsumer(ctx, want.Stream, durableConfig(want))
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	info := consumer.CachedInfo()
	have := info.Config
	// A durable is never made to read other slots than it did: what the former one still owed of them would be lost.
	if have.Metadata[metaRouteUID] != string(want.RouteUID) || have.Metadata[metaLanes] != lanesText(want) || have.AckPolicy != jetstream.AckExplicitPolicy || have.DeliverSubject != "" {
		if err := s.js.DeleteConsumer(ctx, want.Stream, want.Name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false, err
		}
		_, err = s.js.CreateConsumer(ctx, want.Stream, durableConfig(want))
		return true, err
	}
	changed := false
	if repaired := repairDurable(have, want); !reflect.DeepEqual(comparableDurable(have), comparableDurable(repaired)) {
		if _, err := s.js.UpdateConsumer(ctx, want.Stream, repaired); err != nil {
			return false, err
		}
		changed = true
	}
	if want.Paused == info.Paused {
		return changed, nil
	}
	if want.Paused {
		_, err = s.js.PauseConsumer(ctx, want.Stream, want.Name, pausedUntil)
	} else {
		_, err = s.js.ResumeConsumer(ctx, want.Stream, want.Name)
	}
	return changed || err == nil, err
}

func durableConfig(want Durable) jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable: want.Name, Description: "Route " + want.Route + " to " + want.Destination,
		AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy, ReplayPolicy: jetstream.ReplayInstantPolicy,
		Metadata: map[string]string{},
	}
	if !want.Start.IsZero() {
		start := want.Start.UTC()
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &start
	}
	if want.Paused {
		until := pausedUntil
		cfg.PauseUntil = &until
	}
	return repairDurable(cfg, want)
}

// repairDurable is have with everything that may change as it is wanted. Where the durable starts never changes: it has a place in the
// stream. Copies are left to the stream, which passes its own number on.
func repairDurable(have jetstream.ConsumerConfig, want Durable) jetstream.ConsumerConfig {
	out := have
	out.FilterSubject, out.FilterSubjects = "", slices.Clone(want.Filters)
	out.AckWait, out.BackOff = want.AckWait, nil
	out.MaxDeliver, out.MaxAckPending = -1, maxAckPending
	out.PriorityPolicy, out.PriorityGroups, out.PinnedTTL = jetstream.PriorityPolicyNone, nil, 0
	if want.OnePod {
		out.PriorityPolicy, out.PriorityGroups, out.PinnedTTL = jetstream.PriorityPolicyPinned, []string{contract.LaneGroup}, contract.LanePinTime
	}
	if want.Lanes > 0 {
		out.PriorityPolicy, out.PriorityGroups, out.PinnedTTL = jetstream.PriorityPolicyPinned, []string{contract.LaneGroup}, contract.LanePinTime
		out.AckWait, out.MaxAckPending = contract.LaneAckWait, want.Window
	}
	out.InactiveThreshold, out.RateLimit, out.HeadersOnly = 0, 0, false
	out.MaxRequestBatch, out.MaxRequestExpires, out.MaxRequestMaxBytes = 0, 0, 0
	out.Metadata = maps.Clone(have.Metadata)
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	out.Metadata[metaRouteUID] = string(want.RouteUID)
	out.Metadata[metaRoute] = want.Route
	out.Metadata[metaDestination] = want.Destination
	if want.Lanes > 0 {
		out.Metadata[metaLanes] = lanesText(want)
	}
	return out
}

// lanesText is the metadata of a lane; empty for a durable that is none.
func lanesText(want Durable) string {
	if want.Lanes == 0 {
		return ""
	}
	return strconv.Itoa(want.Lanes)
}

// comparableDurable has one form for what the server writes in several.
func comparableDurable(c jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	filters := slices.Clone(c.FilterSubjects)
	if c.FilterSubject != "" {
		filters = append(filters, c.FilterSubject)
	}
	slices.Sort(filters)
	c.FilterSubject, c.FilterSubjects = "", filters
	if len(c.BackOff) == 0 {
		c.BackOff = nil
	}
	if len(c.PriorityGroups) == 0 {
		c.PriorityGroups = nil
	}
	c.Name = c.Durable
	return c
}

// Durables implements Session.
func (s *session) Durables(ctx context.Context, stream string) ([]DurableState, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	handle, err := s.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, explain(err))
	}
	var all []DurableState
	marks := s.trimmer.marksOf(stream) // before the list, which must not lack one that is taken off
	list := handle.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Config.Durable == "" {
			continue
		}
		all = append(all, DurableState{
			Name: info.Name, RouteUID: types.UID(info.Config.Metadata[metaRouteUID]), Route: info.Config.Metadata[metaRoute], Destination: info.Config.Metadata[metaDestination],
			Filters: comparableDurable(info.Config).FilterSubjects, AckFloor: info.AckFloor.Stream,
			Pending: info.NumPending - min(info.NumPending, marks.above(info.Delivered.Stream)), AckPending: info.NumAckPending, Paused: info.Paused,
		})
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("durable consumers of stream %s: %w", stream, explain(err))
	}
	return all, nil
}

// DeleteDurable implements Session.
func (s *session) DeleteDurable(ctx context.Context, stream, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := s.js.DeleteConsumer(ctx, stream, name)
	if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return fmt.Errorf("durable consumer %s of stream %s: %w", name, stream, explain(err))
}
