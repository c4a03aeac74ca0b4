package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/metip/metip/connectors/sdk"
)

const (
	maxBackoff = 5 * time.Second
	// busyGrace is how long another reader of the slot is taken for the pod that this one follows, and is not worth a report.
	busyGrace = 30 * time.Second
	// steady is how long a session lasts whose end is no reason to wait longer than after the first failure.
	steady       = 10 * time.Second
	closeTimeout = 2 * time.Second
	// setupTimeout for publication and slot to be looked up, and the former to be made.
	setupTimeout = 30 * time.Second
	// maxProtocolMessage is the largest change that is read: PostgreSQL's fields can be of 1 GB, and a pod has 256 MiB.
	maxProtocolMessage = 32 << 20
	defaultRetainedMiB = 1024
)

// Snapshots that are made where the slot does not exist yet.
const (
	snapshotInitial = "Initial"
	snapshotNever   = "Never"
)

// captureOptions are the JSON of the API's PostgresCapture.
type captureOptions struct {
	Slot        string   `json:"slot"`
	Publication string   `json:"publication"`
	Tables      []string `json:"tables"`
	Snapshot    string   `json:"snapshot"`
	MaxRetained int64    `json:"maxRetainedMiB"`
}

// capture is the source of changes: one reader of one replication slot.
type capture struct {
	*access
	captureOptions
	health health
	// retained and behind are what the slot keeps of the log, and how far what is confirmed is behind it, in bytes.
	retained, behind atomic.Int64
}

// errBusy: another pod reads the slot.
var errBusy = errors.New("another pod, or another program, reads the replication slot")

func newCapture(server *access, o captureOptions) (sdk.Source, error) {
	rt := server.rt
	if !isName(o.Slot) {
		return nil, fmt.Errorf("capture: slot %q is not 1 to %d of a-z, 0-9 and _", o.Slot, maxName)
	}
	s := &capture{access: server, captureOptions: o}
	if s.Publication == "" {
		s.Publication = s.Slot
	}
	if !isName(s.Publication) {
		return nil, fmt.Errorf("capture: publication %q is not 1 to %d of a-z, 0-9 and _", s.Publication, maxName)
	}
	switch s.Snapshot {
	case "":
		s.Snapshot = snapshotInitial
	case snapshotInitial, snapshotNever:
	default:
		return nil, fmt.Errorf("capture: snapshot %q is not one of Initial and Never", s.Snapshot)
	}
	if s.MaxRetained == 0 {
		s.MaxRetained = defaultRetainedMiB
	}
	if rt.Gauge != nil {
		rt.Gauge("metip_connector_replication_retained_bytes", "Bytes of its log that the database keeps for the replication slot.", func() float64 { return float64(s.retained.Load()) })
		rt.Gauge("metip_connector_replication_behind_bytes", "Bytes of the database's log that the bus has not confirmed yet.", func() float64 { return float64(s.behind.Load()) })
	}
	return s, nil
}

// maxName leaves room for what the names of temporary slots end in.
const maxName = 48

// isName tells names that mean the same quoted and unquoted, which both a slot's and a publication's then are.
func isName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxName
}

// Run reads changes until the context ends. Whatever breaks is reported and tried again.
func (s *capture) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	s.health.state = state
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 200*time.Millisecond, maxBackoff
	var busySince time.Time
	for {
		changed := s.rt.Secrets.Changed()
		begun := time.Now()
		err := s.session(ctx, bus, changed)
		if ctx.Err() != nil {
			return nil // what was under way is settled
		}
		if time.Since(begun) > steady {
			delay.Reset()
			busySince = time.Time{}
		}
		switch busy := errors.Is(err, errBusy); {
		case err == nil:
			continue // the Secret has changed
		case !busy:
			busySince = time.Time{}
			s.rt.Log.Warn("the capture broke off", "error", describe(err))
			s.health.down(s.failure(err))
		case busySince.IsZero():
			busySince = time.Now()
		case time.Since(busySince) > busyGrace:
			s.health.down(s.systemErrorf("slot %s: %w", s.Slot, err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			delay.Reset()
		case <-time.After(delay.NextBackOff()):
		}
	}
}

// failure as it is reported.
func (s *capture) failure(err error) error {
	var large *pgproto3.ExceededMaxBodyLenErr
	if errors.As(err, &large) {
		return s.systemErrorf("a change is larger than %d MiB, which no pod can hold: leave large columns out of the publication (ALTER PUBLICATION %s SET TABLE ... (columns))", maxProtocolMessage>>20, s.Publication)
	}
	return s.unavailable(err)
}

// session of connections, until one of them breaks or the context ends; nil when other credentials are to be used.
func (s *capture) session(ctx context.Context, bus sdk.Publisher, changed <-chan struct{}) error {
	control, err := s.connect(ctx, false)
	if err != nil {
		return err
	}
	defer s.disconnect(ctx, control)
	// Whoever holds the lock may make the slot and read it. It goes with its connection.
	var free bool
	setup, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if err := control.QueryRow(setup, "SELECT pg_try_advisory_lock(hashtextextended('metip.slot.' || $1::text, 0))", s.Slot).Scan(&free); err != nil {
		return err
	}
	if !free {
		return errBusy
	}
	if err := s.ensurePublication(setup, control); err != nil {
		return err
	}
	exists, err := s.checkSlot(setup, control)
	if err != nil {
		return err
	}
	if !exists {
		if err := s.begin(ctx, control, bus); err != nil {
			return err
		}
	}
	return s.stream(ctx, control, bus, changed)
}

// health puts together what is reported: that the connection works says nothing of what watching and publishing have found.
type health struct {
	mu             sync.Mutex
	state          sdk.Reporter
	watch, publish error
}

// up: the connection works.
func (h *health) up() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell()
}

// down: it does not.
func (h *health) down(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch, h.publish = nil, nil
	h.state.System(err)
}

// watched is what watching has found, nil for nothing.
func (h *health) watched(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = err
	h.tell()
}

// refused is why the bus can never take a message, nil once it has taken one.
func (h *health) refused(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.publish == nil {
		return
	}
	h.publish = err
	h.tell()
}

func (h *health) tell() {
	if h.publish != nil {
		h.state.System(h.publish)
	} else {
		h.state.System(h.watch)
	}
}
