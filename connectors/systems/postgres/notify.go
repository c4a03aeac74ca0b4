package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/metip/metip/connectors/sdk"
)

const (
	// maxNotes and maxNoteBytes wait for the bus; what comes beyond is dropped. The server's own queue serves all its clients: one that does not
	// read would fill it up, and then make the statements of others fail.
	maxNotes     = 10000
	maxNoteBytes = 16 << 20
	notesBatch   = 100
	// lookEvery is how often it is looked whether a source that is suspended still is.
	lookEvery = time.Second
	// headerChannel of a notification.
	headerChannel = "pgchannel"
)

// notifyOptions are the JSON of the API's PostgresNotify.
type notifyOptions struct {
	Channels []string `json:"channels"`
}

// listener is the source of notifications: at most once, for the server keeps them for nobody who is away.
type listener struct {
	*access
	notifyOptions
	format string
	health health
	// run is a part of every id: nothing tells one notification from another of the same text.
	run string

	mu      sync.Mutex
	notes   []*sdk.Message
	bytes   int
	count   uint64
	dropped uint64
	// more is told of new ones.
	more chan struct{}
}

func newListener(server *access, o notifyOptions) (sdk.Source, error) {
	if len(o.Channels) == 0 {
		return nil, errors.New("notify: channels are needed")
	}
	for _, name := range o.Channels {
		if name == "" {
			return nil, errors.New("notify: a channel has no name")
		}
	}
	s := &listener{access: server, notifyOptions: o, format: server.rt.Config.Source.Format, more: make(chan struct{}, 1)}
	if g := server.rt.Gauge; g != nil {
		g("metip_connector_notifications_dropped", "Notifications of the database that were dropped since the pod has started, for the bus did not take those before them.", func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(s.dropped)
		})
	}
	return s, nil
}

// Run listens until the context ends, and then gives the bus what it has heard.
func (s *listener) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	var id [6]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	s.run, s.health.state = hex.EncodeToString(id[:]), state
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.publish(ctx, bus)
	}()
	s.sessions(ctx, &s.health, func(ctx context.Context, changed <-chan struct{}) error { return s.session(ctx, bus, changed) }, s.unavailable)
	<-ended
	return nil
}

// session of one connection, until it breaks or the context ends; nil when other credentials are to be used.
func (s *listener) session(ctx context.Context, bus sdk.Publisher, changed <-chan struct{}) error {
	conn, err := s.open(ctx, func(config *pgx.ConnConfig) {
		config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { s.hear(n) }
	})
	if err != nil {
		return err
	}
	defer s.disconnect(ctx, conn)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-inner.Done():
		}
	}()
	s.health.up()
	for errors.Is(bus.Ready(), sdk.ErrSuspended) { // it hears nothing, as it takes nothing in
		pause, end := context.WithTimeout(inner, lookEvery)
		err := conn.PgConn().WaitForNotification(pause)
		end()
		if inner.Err() != nil || conn.IsClosed() {
			return broken(ctx, inner, err)
		}
	}
	for _, name := range s.Channels {
		if _, err := conn.Exec(inner, "LISTEN "+quote(name)); err != nil {
			return broken(ctx, inner, fmt.Errorf("listen to %s: %w", name, err))
		}
	}
	for {
		if err := conn.PgConn().WaitForNotification(inner); err != nil {
			return broken(ctx, inner, err)
		}
	}
}

// broken is why a session has ended: nil when it was ended for other credentials.
func broken(ctx, inner context.Context, err error) error {
	if ctx.Err() == nil && inner.Err() != nil {
		return nil
	}
	return err
}

// hear a notification.
func (s *listener) hear(n *pgconn.Notification) {
	body := []byte(n.Payload)
	contentType := "text/plain; charset=utf-8"
	if s.format == sdk.FormatJSON {
		contentType = "application/json"
		if sdk.CheckFormat(sdk.FormatJSON, body) != nil {
			body, _ = json.Marshal(n.Payload) // a string is always
		}
	}
	s.mu.Lock()
	s.count++
	full := len(s.notes) >= maxNotes || s.bytes+len(body) > maxNoteBytes
	if full {
		s.dropped++
	} else {
		s.bytes += len(body)
		s.notes = append(s.notes, &sdk.Message{
			ID: n.Channel + "/" + s.run + "-" + strconv.FormatUint(s.count, 10), Subject: n.Channel, Time: time.Now().UTC(), ContentType: contentType,
			Headers: map[string]string{headerChannel: n.Channel}, Data: body,
		})
	}
	first := full && s.dropped == 1
	s.mu.Unlock()
	if first {
		s.rt.Log.Warn("notifications are dropped, for the bus does not take those before them", "waiting", maxNotes)
	}
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// next notifications for the bus.
func (s *listener) next() []*sdk.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes[:min(len(s.notes), notesBatch):min(len(s.notes), notesBatch)]
}

// taken are the first n, by the bus or by nobody.
func (s *listener) taken(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.notes[:n] {
		s.bytes -= len(m.Data)
	}
	if s.notes = s.notes[n:]; len(s.notes) == 0 {
		s.notes = nil // let go of what it has held
	}
}

// publish what was heard, in order, until the context ends; what waits then may still settle.
func (s *listener) publish(ctx context.Context, bus sdk.Publisher) {
	for {
		for batch := s.next(); len(batch) > 0; batch = s.next() {
			if !s.give(ctx, bus, batch) {
				return
			}
		}
		select {
		case <-ctx.Done():
			if len(s.next()) == 0 {
				return
			}
		case <-s.more:
		}
	}
}

// give notifications to the bus; false when the context has ended and the bus does not take them.
func (s *listener) give(ctx context.Context, bus sdk.Publisher, batch []*sdk.Message) bool {
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 100*time.Millisecond, maxBackoff
	for {
		err := settle(ctx, func(ctx context.Context) error { return bus.Publish(ctx, batch...) })
		switch {
		case err == nil:
			s.taken(len(batch))
			return true
		case errors.Is(err, sdk.ErrInvalid) && len(batch) > 1:
			batch = batch[:1]
			continue
		case errors.Is(err, sdk.ErrInvalid):
			s.rt.Log.Warn("a notification is dropped that the bus can never take", "id", batch[0].ID, "error", err)
			s.mu.Lock()
			s.dropped++
			s.mu.Unlock()
			s.taken(1)
			return true
		}
		select {
		case <-ctx.Done():
			if n := len(s.next()); n > 0 {
				s.rt.Log.Warn("the pod ends with notifications that the bus has not taken", "at least", n, "error", err)
			}
			return false
		case <-time.After(delay.NextBackOff()):
		}
	}
}
