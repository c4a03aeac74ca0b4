package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
)

// When and how far streams are trimmed.
const (
	defaultTrimInterval = 15 * time.Second
	// watchAbove this share of max_bytes the floors are looked at, so that they are known when trimming begins.
	watchAbove = 0.6
	// trimAbove this share the oldest that nobody is owed goes, until trimTo is reached.
	trimAbove = 0.7
	trimTo    = 0.5
)

// trimmer removes from event streams what has been delivered, and what nobody is owed, when there is little room or it is older
// than its retention. The streams forget nothing themselves.
//
// A durable consumer is owed everything above its ack floor. The floor of an idle consumer moves only when it acknowledges something, hence
// the marks: messages that every durable filters for and every sink acknowledges. Leaders change, and a list can be incomplete, hence
// two complete lists an interval apart, of which the lower floor counts.
type trimmer struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	interval time.Duration
	log      logr.Logger
	// heldUp tells whether a connector's pods report that the stream is full; nil when nobody listens to them.
	heldUp func(namespace, connector string) bool
	// scan reads a stream; nil when nobody can.
	scan func(ctx context.Context, sc scan, until time.Time, each func(stored) error) (done bool, err error)
	// claims of each stream of claims, and up to where those crowd it that the events of a stream name.
	claims  map[string]*claimIndex
	crowded map[string]uint64
	// rooms that relays are given, by stream.
	rooms map[string]room

	mu      sync.Mutex
	locks   map[string]*sync.Mutex
	raised  map[string]bool
	held    map[string]map[types.UID]held
	streams map[string]*trimState
	// marks that each stream holds, as far as they are known.
	marks map[string]sequences
	// counts of the claims of each Integration.
	counts map[types.NamespacedName]ClaimCount
}

// trimState is what is remembered of one stream between two looks.
type trimState struct {
	// mark is the sequence of the last mark; zero is not known.
	mark uint64
	// floor of the previous complete list; floorAt is when that was.
	floor   uint64
	floorAt time.Time
	// heldUp: its relay waits for room. state is the stream of its steps' state, if there is one.
	heldUp bool
	state  string
	// failed is what the last look failed with.
	failed string
}

func newTrimmer(nc *nats.Conn, js jetstream.JetStream, interval time.Duration, log logr.Logger) *trimmer {
	if interval <= 0 {
		interval = defaultTrimInterval
	}
	return &trimmer{
		nc: nc, js: js, interval: interval, log: log.WithName("trimmer"),
		locks: map[string]*sync.Mutex{}, raised: map[string]bool{}, held: map[string]map[types.UID]held{}, streams: map[string]*trimState{}, marks: map[string]sequences{},
		claims: map[string]*claimIndex{}, crowded: map[string]uint64{}, rooms: map[string]room{}, counts: map[types.NamespacedName]ClaimCount{},
	}
}

// lock a stream against a change of its settings or consumers by others of this process.
func (t *trimmer) lock(stream string) (unlock func()) {
	t.mu.Lock()
	l := t.locks[stream]
	if l == nil {
		l = &sync.Mutex{}
		t.locks[stream] = l
	}
	t.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// isRaised says that the size of a stream is above what is wanted, for the time being.
func (t *trimmer) isRaised(stream string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.raised[stream]
}

func (t *trimmer) setRaised(stream string, raised bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if raised {
		t.raised[stream] = true
	} else {
		delete(t.raised, stream)
	}
}

// run until ctx ends: a look at everything at each interval, and quick ones between them.
func (t *trimmer) run(ctx context.Context) {
	timer := time.NewTimer(t.interval)
	defer timer.Stop()
	for whole := time.Now().Add(t.interval); ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		look := t.quick
		if now := time.Now(); !now.Before(whole) {
			look, whole = t.all, now.Add(t.interval)
		}
		if err := look(ctx); err != nil && ctx.Err() == nil {
			t.log.V(1).Info("streams were not looked at", "error", err.Error())
		}
		timer.Reset(min(t.next(), time.Until(whole)))
	}
}

// all event streams, one after the other.
func (t *trimmer) all(ctx context.Context) error {
	if !t.nc.IsConnected() {
		return nats.ErrDisconnected
	}
	listing, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list := t.js.ListStreams(listing)
	var infos, states, claims []*jetstream.StreamInfo
	for info := range list.Info() {
		switch info.Config.Metadata[metaRole] {
		case roleEvents:
			infos = append(infos, info)
		case roleState:
			states = append(states, info)
		case roleClaims:
			claims = append(claims, info)
		}
	}
	if err := list.Err(); err != nil {
		return err
	}
	for _, info := range states {
		if err := t.stateRoom(ctx, info); err != nil && ctx.Err() == nil {
			t.log.Info("the state of steps has no room", "stream", info.Config.Name, "error", err.Error())
		}
	}
	for _, info := range infos {
		if err := t.one(ctx, info); err != nil && ctx.Err() == nil {
			t.log.Info("stream was not trimmed", "stream", info.Config.Name, "error", err.Error())
		}
	}
	t.known(infos, states)
	t.allClaims(ctx, claims)
	return nil
}

// known streams are these; what is remembered of others is forgotten.
func (t *trimmer) known(infos, states []*jetstream.StreamInfo) {
	present := map[string]bool{}
	for _, info := range slices.Concat(infos, states) {
		present[info.Config.Name] = true
	}
	for name, state := range t.streams {
		if !present[name] {
			delete(t.streams, name)
			t.forgetMarks(name)
		}
		state.state = ""
	}
	for _, info := range states {
		namespace, integration := info.Config.Metadata[metaNamespace], info.Config.Metadata[metaIntegration]
		if state := t.streams[contract.EventStream(namespace, integration)]; state != nil {
			state.state = info.Config.Name
		}
	}
	for name := range t.rooms {
		if !present[name] {
			delete(t.rooms, name)
		}
	}
}

// one look at one stream.
func (t *trimmer) one(ctx context.Context, info *jetstream.StreamInfo) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := info.Config.Name
	unlock := t.lock(name)
	defer unlock()
	state := t.streams[name]
	if state == nil {
		state = &trimState{}
		t.streams[name] = state
	}
	// A mark that fails is no reason not to trim: on a full stream trimming is what makes the next one succeed.
	failed := t.mark(ctx, info, state)
	if due(info) || t.crowded[name] > 0 {
		floor, complete, err := t.floor(ctx, info, state)
		if err == nil && complete {
			err = t.trim(ctx, info, floor)
		}
		failed = errors.Join(failed, err)
	}
	heldUp, err := t.makeRoom(ctx, info)
	failed = errors.Join(failed, err)
	state.heldUp = heldUp
	if !heldUp {
		failed = errors.Join(failed, t.lower(ctx, info))
	}
	return failed
}

// due says that a stream is filling up, or holds what is older than its retention.
func due(info *jetstream.StreamInfo) bool {
	if info.State.Msgs == 0 {
		return false
	}
	if float64(info.State.Bytes) > watchAbove*float64(wantedBytes(info)) {
		return true
	}
	return clock(info).Sub(info.State.FirstTime) > keepFor(info)
}

// clock is the broker's time, which the messages were stamped with.
func clock(info *jetstream.StreamInfo) time.Time {
	if info.TimeStamp.IsZero() {
		return time.Now()
	}
	return info.TimeStamp
}

// keepFor is how long messages stay that nobody is owed: the retention, and never less than the window of de-duplication, whose ids
// a server reads from the stored messages when it starts.
func keepFor(info *jetstream.StreamInfo) time.Duration {
	retention, err := time.ParseDuration(info.Config.Metadata[metaRetention])
	if err != nil {
		return math.MaxInt64
	}
	return max(retention, info.Config.Duplicates)
}

// trim up to what the floor, the de-duplication window and the reason for trimming allow.
func (t *trimmer) trim(ctx context.Context, info *jetstream.StreamInfo, floor uint64) error {
	stream, err := t.js.Stream(ctx, info.Config.Name)
	if err != nil {
		return err
	}
	info = stream.CachedInfo()
	now := clock(info)
	window, err := t.firstSince(ctx, info, now.Add(-info.Config.Duplicates))
	if err != nil {
		return err
	}
	old, err := t.firstSince(ctx, info, now.Add(-keepFor(info)))
	if err != nil {
		return err
	}
	target := min(floor+1, window, max(old, crowdedGoal(info), t.crowded[info.Config.Name]), t.heldFrom(info, time.Now()))
	if target <= info.State.FirstSeq {
		return nil
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(target)); err != nil {
		return fmt.Errorf("purging up to sequence %d: %w", target, err)
	}
	t.log.V(1).Info("stream was trimmed", "stream", info.Config.Name, "first", target, "floor", floor)
	return nil
}

// crowdedGoal is the first sequence to keep so that a stream above trimAbove comes down to trimTo, if its messages are of one size;
// zero when there is room.
func crowdedGoal(info *jetstream.StreamInfo) uint64 {
	want, bytes := float64(wantedBytes(info)), float64(info.State.Bytes)
	if want <= 0 || bytes <= trimAbove*want {
		return 0
	}
	span := float64(info.State.LastSeq - info.State.FirstSeq + 1)
	return info.State.FirstSeq + uint64(span*(bytes-trimTo*want)/bytes) + 1
}

// firstSince is the sequence of the first message stored at or after a time; the next to be stored, if there is none.
func (t *trimmer) firstSince(ctx context.Context, info *jetstream.StreamInfo, since time.Time) (uint64, error) {
	if info.State.Msgs == 0 || info.State.LastTime.Before(since) {
		return info.State.LastSeq + 1, nil
	}
	found, err := t.get(ctx, info.Config.Name, map[string]any{"start_time": since.UTC(), "next_by_subj": ">", "no_hdr": true})
	if err != nil {
		return 0, err
	}
	if found.Sequence == 0 || found.Time.Before(since) {
		// A message was stored since, by the state, and is not found: look again next time.
		return info.State.FirstSeq, nil
	}
	return found.Sequence, nil
}

// storedMessage is what the leader of a stream says of one message.
type storedMessage struct {
	Sequence uint64    `json:"seq"`
	Time     time.Time `json:"time"`
}

// get one message from the stream's leader; the zero value when there is none.
func (t *trimmer) get(ctx context.Context, stream string, request map[string]any) (storedMessage, error) {
	var answer struct {
		Message *storedMessage `json:"message"`
		Error   *apiError      `json:"error"`
	}
	if err := t.request(ctx, "STREAM.MSG.GET."+stream, request, &answer); err != nil {
		return storedMessage{}, err
	}
	if answer.Error != nil {
		if answer.Error.Code == 404 {
			return storedMessage{}, nil
		}
		return storedMessage{}, answer.Error
	}
	if answer.Message == nil {
		return storedMessage{}, nil
	}
	return *answer.Message, nil
}

func (t *trimmer) request(ctx context.Context, call string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	reply, err := t.nc.RequestWithContext(ctx, "$JS.API."+call, body)
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	return json.Unmarshal(reply.Data, answer)
}

type apiError struct {
	Code        int    `json:"code"`
	ErrorCode   int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrorCode) }
