package bus

import (
	"context"
	"fmt"
	"time"

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
		return true, fmt.Errorf("the relay is held up by a full stream, and its reserve of %d MiB is used up", (limit-wantedBytes(info))>>20)
	}
	t.setRaised(name, true)
	cfg.MaxBytes = min(max(cfg.MaxBytes, int64(stream.CachedInfo().State.Bytes))+step, limit)
	if _, err := t.js.UpdateStream(ctx, cfg); err != nil {
		return true, fmt.Errorf("raising max_bytes for the relay: %w", err)
	}
	info.Config.MaxBytes = cfg.MaxBytes
	t.log.Info("raised a full stream, so that the relay can go on", "stream", name, "maxBytes", cfg.MaxBytes)
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
	if info.Config.MaxBytes > wantedBytes(info) {
		return t.lower(ctx, name)
	}
	return nil
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
