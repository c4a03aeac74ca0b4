package walkthrough

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/metip/metip/connectors/sdk"
)

const (
	// maxBatch is how many records one call of Write brings.
	maxBatch = 64
	// maxSessions are kept open while nobody uses them.
	maxSessions = 4
)

// sink puts records into the registry.
type sink struct {
	*registry
	idle chan *session
}

// NewSink makes a sink of the options.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	r, err := newRegistry(rt, raw)
	if err != nil {
		return nil, err
	}
	return &sink{r, make(chan *session, maxSessions)}, nil
}

// Operation is the Connector's own; there is no other.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if raw != nil {
		return nil, errors.New("a registry has no operations")
	}
	return s, nil
}

// MaxBatch implements sdk.Operation.
func (s *sink) MaxBatch() int { return maxBatch }

// Check implements sdk.Sink: it logs in, or asks whether somebody is there.
func (s *sink) Check(ctx context.Context) error {
	r, err := s.session(ctx)
	if err != nil {
		return err
	}
	_, err = r.ask(ctx, "PING")
	s.keep(r, err)
	if err != nil {
		return s.lost(err)
	}
	return nil
}

// Write implements sdk.Operation. Records of a batch are put one after the other.
func (s *sink) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	r, err := s.session(ctx)
	for i, d := range batch {
		if err != nil { // the session is lost, and with it what comes after
			results[i] = err
			continue
		}
		var answer string
		if answer, err = r.put(ctx, d); err != nil {
			err = s.lost(err)
			if ctx.Err() != nil {
				err = ctx.Err() // which says nothing about the registry
			}
			results[i] = err
			continue
		}
		results[i] = classify(answer)
	}
	if r != nil {
		s.keep(r, err)
	}
	return results
}

// put one record. The registry takes an id once, so that a delivery that is repeated changes nothing.
func (s *session) put(ctx context.Context, d *sdk.Delivery) (string, error) {
	var line bytes.Buffer
	if err := json.Compact(&line, d.Data); err != nil {
		return "BAD the body is no JSON: " + err.Error(), nil
	}
	id := sha256.Sum256([]byte(d.MessageID))
	return s.ask(ctx, "PUT", hex.EncodeToString(id[:]), line.String())
}

// classify an answer: what becomes of a message depends on it.
func classify(answer string) error {
	what, why, _ := strings.Cut(answer, " ")
	switch what {
	case "OK":
		return nil
	case "BAD":
		return sdk.Permanentf("the registry refuses the record: %.200s", why)
	default:
		return fmt.Errorf("the registry does not take the record: %.200s", answer)
	}
}

// session that is idle and younger than the Secret, or a new one.
func (s *sink) session(ctx context.Context) (*session, error) {
	for {
		select {
		case r := <-s.idle:
			if r.version == s.rt.Secrets.Version() {
				return r, nil
			}
			r.close()
		default:
			return s.open(ctx)
		}
	}
}

// keep a session for the next, unless it has failed.
func (s *sink) keep(r *session, err error) {
	if err == nil {
		select {
		case s.idle <- r:
			return
		default:
		}
	}
	r.close()
}

// Close implements sdk.Sink.
func (s *sink) Close() error {
	for {
		select {
		case r := <-s.idle:
			r.close()
		default:
			return nil
		}
	}
}
