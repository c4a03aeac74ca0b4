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

// Metadata of streams and durable consumers. The trimmer works from it alone, so that it needs nothing of Kubernetes.
const (
	metaRole           = "bus.metip.dev/role"
	metaNamespace      = "bus.metip.dev/namespace"
	metaIntegration    = "bus.metip.dev/integration"
	metaIntegrationUID = "bus.metip.dev/integration-uid"
	metaRetention      = "bus.metip.dev/retention"
	metaMaxBytes       = "bus.metip.dev/max-bytes"
	metaRoute          = "bus.metip.dev/route"
	metaRouteUID       = "bus.metip.dev/route-uid"
	metaDestination    = "bus.metip.dev/destination"
	metaLanes          = "bus.metip.dev/lanes"

	roleEvents = "events"
	roleDead   = "dead-letters"
	roleState  = "state"
	roleClaims = "claims"
	roleStatus = "status"
)

// deadDuplicates is how long the dead-letter stream remembers message ids; dead letters are written once by their subject, so that
// nothing depends on it.
const deadDuplicates = 2 * time.Minute

// EnsureStreams implements Session.
func (s *session) EnsureStreams(ctx context.Context, want Streams) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	events, err := s.ensureEvents(ctx, want)
	if err != nil {
		return events, fmt.Errorf("stream %s: %w", contract.EventStream(want.Namespace, want.Integration), explain(err))
	}
	dead, err := s.ensureStream(ctx, s.deadStream(want))
	if err != nil {
		return events || dead, fmt.Errorf("stream %s: %w", contract.DeadStream(want.Namespace, want.Integration), explain(err))
	}
	changed := events || dead
	for _, more := range s.furtherStreams(want) {
		made, err := s.ensureStream(ctx, more)
		if changed = changed || made; err != nil {
			return changed, fmt.Errorf("stream %s: %w", more.Name, explain(err))
		}
	}
	return changed, nil
}

// furtherStreams that an Integration needs.
func (s *session) furtherStreams(want Streams) (list []jetstream.StreamConfig) {
	if want.StateMaxBytes > 0 {
		list = append(list, s.stateStream(want))
	}
	if want.ClaimsMaxBytes > 0 {
		list = append(list, s.claimStream(want))
	}
	for _, t := range want.Tables {
		list = append(list, s.tableStream(want, t))
	}
	return list
}

// claimStream keeps chunks of bodies that are too large for the events. A chunk is written once: nobody can exchange what was accepted.
func (s *session) claimStream(want Streams) jetstream.StreamConfig {
	cfg := s.baseStream(contract.ClaimStream(want.Namespace, want.Integration), want.ClaimsMaxBytes)
	cfg.Description = "claim checks of Integration " + want.Namespace + "/" + want.Integration
	cfg.Subjects = []string{contract.ClaimSubjects(want.Namespace, want.Integration)}
	cfg.MaxMsgsPerSubject, cfg.DiscardNewPerSubject, cfg.AllowAtomicPublish, cfg.DenyDelete = 1, true, false, true
	cfg.MaxMsgSize = contract.ClaimChunk + contract.MaxHeaderSize
	cfg.Duplicates = deadDuplicates
	cfg.Metadata = integrationMetadata(want, roleClaims)
	cfg.Metadata[metaMaxBytes] = strconv.FormatInt(want.ClaimsMaxBytes, 10)
	return cfg
}

// ensureEvents makes or repairs the event stream. Where dead letters, state or tables outlived an earlier one, which an administrator or a lost disk
// took away, the sequences of the new one begin beyond any of the old one's: they name messages by them, and would take new ones for those.
// It begins with the microseconds since 1970, which no stream of less than a million messages a second overtakes.
func (s *session) ensureEvents(ctx context.Context, want Streams) (bool, error) {
	cfg := s.eventStream(want)
	if _, err := s.js.Stream(ctx, cfg.Name); !errors.Is(err, jetstream.ErrStreamNotFound) {
		return s.ensureStream(ctx, cfg)
	}
	names := []string{contract.DeadStream(want.Namespace, want.Integration), contract.StateStream(want.Namespace, want.Integration)}
	for _, t := range want.Tables {
		names = append(names, contract.TableStream(want.Namespace, want.Integration, t.Name))
	}
	for _, name := range names {
		stream, err := s.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if stream.CachedInfo().State.LastSeq > 0 {
			cfg.FirstSeq = uint64(time.Now().UnixMicro())
		}
	}
	return s.ensureStream(ctx, cfg)
}

// stateStream keeps the last document of each key, for as long as the document says. A message removes nobody else's: a source writes under
// one subject, the relay under any, and there is no roll-up.
func (s *session) stateStream(want Streams) jetstream.StreamConfig {
	cfg := s.baseStream(contract.StateStream(want.Namespace, want.Integration), want.StateMaxBytes)
	cfg.Description = "state of the steps and sources of Integration " + want.Namespace + "/" + want.Integration
	cfg.Subjects = []string{contract.StateSubjects(want.Namespace, want.Integration)}
	cfg.MaxMsgsPerSubject, cfg.AllowMsgTTL, cfg.AllowAtomicPublish = 1, true, false
	cfg.Duplicates = deadDuplicates
	cfg.Metadata = integrationMetadata(want, roleState)
	cfg.Metadata[metaMaxBytes] = strconv.FormatInt(want.StateMaxBytes, 10)
	return cfg
}

// PurgeState implements Session.
func (s *session) PurgeState(ctx context.Context, namespace, integration string, route types.UID, destination string) error {
	return s.purgeState(ctx, namespace, integration, contract.StatePrefix(namespace, integration, string(route), destination)+">")
}

// purgeState removes the documents of some subjects.
func (s *session) purgeState(ctx context.Context, namespace, integration, subjects string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := contract.StateStream(namespace, integration)
	stream, err := s.js.Stream(ctx, name)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(subjects))
	}
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s: %w", name, explain(err))
	}
	return nil
}

// Positions implements Session.
func (s *session) Positions(ctx context.Context, namespace, integration string) ([]types.UID, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := contract.StateStream(namespace, integration)
	stream, err := s.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = stream.Info(ctx, jetstream.WithSubjectFilter(contract.PositionSubjects(namespace, integration)))
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, explain(err))
	}
	var out []types.UID
	for subject := range info.State.Subjects {
		if uid, ok := contract.ParsePositionSubject(namespace, integration, subject); ok {
			out = append(out, types.UID(uid))
		}
	}
	slices.Sort(out)
	return out, nil
}

// PurgePosition implements Session.
func (s *session) PurgePosition(ctx context.Context, namespace, integration string, connector types.UID) error {
	return s.purgeState(ctx, namespace, integration, contract.PositionSubject(namespace, integration, string(connector)))
}

// eventStream keeps what is owed however old it is, and refuses what is new when it is full.
func (s *session) eventStream(want Streams) jetstream.StreamConfig {
	cfg := s.baseStream(contract.EventStream(want.Namespace, want.Integration), want.MaxBytes)
	cfg.Description = "messages of Integration " + want.Namespace + "/" + want.Integration
	cfg.Subjects = []string{
		contract.EventSubjects(want.Namespace, want.Integration),
		contract.ReplaySubjects(want.Namespace, want.Integration),
		contract.MarkSubject(want.Namespace, want.Integration),
	}
	cfg.Duplicates = want.DeduplicationWindow
	cfg.Metadata = integrationMetadata(want, roleEvents)
	cfg.Metadata[metaRetention] = want.Retention.String()
	cfg.Metadata[metaMaxBytes] = strconv.FormatInt(want.MaxBytes, 10)
	return cfg
}

func (s *session) deadStream(want Streams) jetstream.StreamConfig {
	cfg := s.baseStream(contract.DeadStream(want.Namespace, want.Integration), want.DeadMaxBytes)
	cfg.Description = "dead letters of Integration " + want.Namespace + "/" + want.Integration
	cfg.Subjects = []string{"dead." + want.Namespace + "." + want.Integration + ".>"}
	cfg.Duplicates = deadDuplicates
	cfg.Metadata = integrationMetadata(want, roleDead)
	return cfg
}

// baseStream has no roll-up, schedules, expiry or asynchronous persistence: each of them lets one pod's message remove, postpone or
// lose another's.
func (s *session) baseStream(name string, maxBytes int64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, MaxBytes: maxBytes, Replicas: s.streamReplicas(),
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage,
		MaxConsumers: -1, MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
		AllowDirect: true, AllowAtomicPublish: true,
	}
}

// streamReplicas is 1 or 3: five servers bear the loss of one more server, not slower acknowledgements.
func (s *session) streamReplicas() int { return min(max(s.params.Client.Replicas, 1), 3) }

func integrationMetadata(want Streams, role string) map[string]string {
	return map[string]string{
		metaRole: role, metaNamespace: want.Namespace, metaIntegration: want.Integration, metaIntegrationUID: string(want.UID),
	}
}

// ensureStatusStream keeps the last report of each pod. Pods can write to it, so nothing in it can erase another's.
func (s *session) ensureStatusStream(ctx context.Context) error {
	cfg := jetstream.StreamConfig{
		Name: contract.StatusStream, Subjects: []string{contract.StatusSubjects}, Description: "last reports of connector pods",
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Storage: jetstream.MemoryStorage, Replicas: s.streamReplicas(),
		MaxConsumers: -1, MaxMsgs: -1, MaxMsgsPerSubject: 1, MaxMsgSize: contract.MaxReportSize, MaxBytes: statusBytes,
		MaxAge: 30 * time.Second, Duplicates: 30 * time.Second, DenyDelete: true, DenyPurge: true,
		Metadata: map[string]string{metaRole: roleStatus},
	}
	_, err := s.ensureStream(ctx, cfg)
	return err
}

// ensureStream makes or repairs a stream. What it says of a stream's contents is kept: it never takes a copy away.
func (s *session) ensureStream(ctx context.Context, want jetstream.StreamConfig) (bool, error) {
	unlock := s.trimmer.lock(want.Name)
	defer unlock()
	stream, err := s.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = s.js.CreateStream(ctx, want)
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	have := stream.CachedInfo().Config
	if have.Metadata[metaRole] == "" {
		return false, errors.New("exists and was not made by MetIP: move it away, or use another broker")
	}
	repaired := repair(have, want, s.trimmer.isRaised(want.Name))
	if reflect.DeepEqual(have, repaired) {
		return false, nil
	}
	_, err = s.js.UpdateStream(ctx, repaired)
	return err == nil, err
}

// repair is want, but for what only the server or an administrator decides: placement, its own metadata, more copies than are
// wanted, and, while the trimmer has raised it, the size.
func repair(have, want jetstream.StreamConfig, raised bool) jetstream.StreamConfig {
	out := want
	out.Placement, out.Compression, out.ConsumerLimits, out.FirstSeq = have.Placement, have.Compression, have.ConsumerLimits, have.FirstSeq
	out.Replicas = max(have.Replicas, want.Replicas)
	// The server does not let these be taken back.
	out.Storage, out.Sealed = have.Storage, have.Sealed
	out.DenyDelete = have.DenyDelete || want.DenyDelete
	out.DenyPurge = have.DenyPurge || want.DenyPurge
	if raised && have.MaxBytes > want.MaxBytes {
		out.MaxBytes = have.MaxBytes
	}
	out.Metadata = maps.Clone(have.Metadata)
	maps.Copy(out.Metadata, want.Metadata)
	return out
}

// StreamsState implements Session.
func (s *session) StreamsState(ctx context.Context, namespace, integration string) (StreamsState, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var state StreamsState
	events, err := s.streamInfo(ctx, contract.EventStream(namespace, integration), &state)
	if err != nil {
		return StreamsState{}, err
	}
	dead, err := s.streamInfo(ctx, contract.DeadStream(namespace, integration), &state)
	if err != nil {
		return StreamsState{}, err
	}
	state.Bytes, state.MaxBytes, state.Messages = int64(events.State.Bytes), events.Config.MaxBytes, events.State.Msgs
	state.DeadBytes, state.DeadMaxBytes, state.DeadMessages = int64(dead.State.Bytes), dead.Config.MaxBytes, dead.State.Msgs
	claims, err := s.streamInfo(ctx, contract.ClaimStream(namespace, integration), &state)
	switch {
	case errors.Is(err, ErrNotFound): // most have none
	case err != nil:
		return StreamsState{}, err
	default:
		state.ClaimsBytes, state.ClaimsMaxBytes = int64(claims.State.Bytes), claims.Config.MaxBytes
	}
	if err := s.tableStates(ctx, namespace, integration, &state); err != nil {
		return StreamsState{}, err
	}
	return state, nil
}

func (s *session) streamInfo(ctx context.Context, name string, state *StreamsState) (*jetstream.StreamInfo, error) {
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, explain(err))
	}
	info := stream.CachedInfo()
	s.look(info, state)
	return info, nil
}

// look whether every copy of a stream is current.
func (s *session) look(info *jetstream.StreamInfo, state *StreamsState) {
	state.Lagging = append(state.Lagging, s.lag.observe(info, time.Now())...)
	state.NoLeader = state.NoLeader || (info.Cluster != nil && info.Cluster.Leader == "")
}

// DeleteStreams implements Session.
func (s *session) DeleteStreams(ctx context.Context, namespace, integration string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	names := []string{
		contract.EventStream(namespace, integration), contract.DeadStream(namespace, integration), contract.StateStream(namespace, integration),
		contract.ClaimStream(namespace, integration),
	}
	tables, err := s.tables(ctx, namespace, integration)
	if err != nil {
		return err
	}
	for _, info := range tables {
		names = append(names, info.Config.Name)
	}
	for _, name := range names {
		if err := s.deleteStream(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
