package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

// A relay publishes into the stream that it consumes: before it can acknowledge a message, which lets the floor move, there must be room for
// another. A full stream would hold it up for ever. So while a relay reports that the stream is full, the stream gets a reserve, step by step.
// Sources compete for it, but they come back slowly after a full bus (engine, fullSettle), and the relay tries once a second; what it then
// acknowledges is trimmed, and makes room for the next.

// relayReserve is how much larger than wanted a stream may get, so that the relay can go on: two messages of the largest size.
const relayReserve = 2 * (contract.MaxMessageSize + contract.MaxHeaderSize)

// heldUpInterval is between two looks while a relay is held up.
const heldUpInterval = 2 * time.Second

// room is what a stream has been given for its relay.
type room int

const (
	roomWanted room = iota
	roomRaised
	roomUsedUp
)

// setRoom of a stream, and say so when it is another.
func (t *trimmer) setRoom(stream string, r room, maxBytes int64) {
	if t.rooms[stream] == r {
		return
	}
	switch r {
	case roomRaised:
		t.log.Info("raised a full stream, so that the relay can go on", "stream", stream, "maxBytes", maxBytes)
	case roomUsedUp:
		t.log.Info("the relay is held up by a full stream, and its reserve is used up", "stream", stream, "maxBytes", maxBytes)
	default:
		t.log.Info("lowered a stream, which has room again", "stream", stream, "maxBytes", maxBytes)
	}
	if r == roomWanted {
		delete(t.rooms, stream)
	} else {
		t.rooms[stream] = r
	}
}

// next look: soon while a relay waits for room, of which it gets little at a time.
func (t *trimmer) next() time.Duration {
	for _, state := range t.streams {
		if state.heldUp {
			return min(t.interval, heldUpInterval)
		}
	}
	return t.interval
}

// quick look at the streams that hold up their relays, and at nothing else. It says what fails when that is something else than before.
func (t *trimmer) quick(ctx context.Context) error {
	if !t.nc.IsConnected() {
		return nats.ErrDisconnected
	}
	for name, state := range t.streams {
		if !state.heldUp {
			continue
		}
		before := state.failed
		state.failed = ""
		if err := t.quickOne(ctx, name, state); err != nil && ctx.Err() == nil {
			if state.failed = err.Error(); state.failed != before {
				t.log.Info("stream was not trimmed", "stream", name, "error", state.failed)
			}
		}
	}
	return nil
}

func (t *trimmer) quickOne(ctx context.Context, name string, state *trimState) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var failed error
	if state.state != "" {
		info, err := t.info(ctx, state.state)
		if err == nil {
			err = t.stateRoom(ctx, info)
		}
		failed = err
	}
	info, err := t.info(ctx, name)
	if err != nil {
		// The next look at everything finds out whether it is gone.
		state.heldUp = !errors.Is(err, jetstream.ErrStreamNotFound)
		return errors.Join(failed, err)
	}
	return errors.Join(failed, t.one(ctx, info))
}

// makeRoom for a relay that is held up, and tell whether it is.
func (t *trimmer) makeRoom(ctx context.Context, info *jetstream.StreamInfo) (heldUp bool, err error) {
	namespace, integration := info.Config.Metadata[metaNamespace], info.Config.Metadata[metaIntegration]
	if t.heldUp == nil || !t.heldUp(namespace, contract.RelayName(integration)) {
		return false, nil
	}
	name := info.Config.Name
	step := max(minReserve, wantedBytes(info)/100)
	limit := wantedBytes(info) + max(4*step, relayReserve)
	stream, err := t.js.Stream(ctx, name)
	if err != nil {
		return true, err
	}
	cfg := stream.CachedInfo().Config
	if cfg.MaxBytes >= limit {
		t.setRoom(name, roomUsedUp, cfg.MaxBytes)
		return true, nil
	}
	t.setRaised(name, true)
	cfg.MaxBytes = min(max(cfg.MaxBytes, int64(stream.CachedInfo().State.Bytes))+step, limit)
	if _, err := t.js.UpdateStream(ctx, cfg); err != nil {
		return true, fmt.Errorf("raising max_bytes for the relay: %w", err)
	}
	info.Config.MaxBytes = cfg.MaxBytes
	t.setRoom(name, roomRaised, cfg.MaxBytes)
	return true, nil
}

// stateRoom gives the state of steps a reserve while its relay is held up and there is no room for another document of the largest size, or less
// than a tenth: what completes a group, and so makes room, has to be written first.
func (t *trimmer) stateRoom(ctx context.Context, info *jetstream.StreamInfo) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := info.Config.Name
	unlock := t.lock(name)
	defer unlock()
	if wantedBytes(info)-int64(info.State.Bytes) < max(wantedBytes(info)/10, contract.MaxMessageSize+contract.MaxHeaderSize) {
		if heldUp, err := t.makeRoom(ctx, info); heldUp || err != nil {
			return err
		}
	}
	return t.lower(ctx, info)
}

// heldUp tells whether a pod of a connector reports that the stream is full.
func (s *session) heldUp(namespace, connector string) bool {
	for _, p := range s.Reports(namespace, connector) {
		if p.Report.Draining {
			continue
		}
		if !p.Report.System.OK && p.Report.System.Reason == contract.ReasonStreamFull {
			return true
		}
		for _, r := range p.Report.Routes {
			if !r.OK && r.Reason == contract.ReasonStreamFull {
				return true
			}
		}
	}
	return false
}
