package http

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// maxEdge of items with the same cursor that can be remembered, and maxCursor of its bytes: both fit into contract.MaxPosition.
	maxEdge   = 180
	maxCursor = 1 << 10
)

// pollPosition is the document of the source's position.
type pollPosition struct {
	// Of what: another address, or another cursor, has other positions.
	Of string `json:"of"`
	// Cursor that the system is asked with next; empty for none. Edge are the items at it that the bus has: systems differ in whether they say them again.
	Cursor string   `json:"cursor,omitempty"`
	Edge   []string `json:"edge,omitempty"`
	// Version counts the answers that differed from the one before, and Sum tells them apart. Pending: whether the bus has the last is not known.
	Version uint64 `json:"version,omitempty"`
	Sum     string `json:"sum,omitempty"`
	Pending bool   `json:"pending,omitempty"`
}

// of names what the position is of.
func (p *poll) of() string {
	text := p.url.String()
	if p.items != nil {
		text += "\n" + p.items.cursor.kind() + "\n" + p.items.cursor.Parameter
	}
	return digest([]byte(text))
}

// digest of some bytes, short enough to keep many.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// load the position, or begin.
func (p *poll) load(ctx context.Context) error {
	raw, err := p.rt.Position.Load(ctx)
	if err != nil {
		return notKept(err)
	}
	at := pollPosition{Of: p.of()}
	if p.items != nil {
		at.Cursor = p.items.cursor.Start
	}
	if raw != nil {
		var stored pollPosition
		if err := json.Unmarshal(raw, &stored); err != nil {
			return p.systemErrorf("the position of the source is not one of this kind: %w", err)
		}
		if stored.Of == at.Of {
			at = stored
		} else {
			p.rt.Log.Info("the position is of another url or cursor, and the source begins anew")
		}
	}
	p.at, p.seen = &at, pollValidator{}
	return nil
}

// store the position, unless it is the one that is stored.
func (p *poll) store(ctx context.Context, at pollPosition) error {
	if at.Cursor == p.at.Cursor && slices.Equal(at.Edge, p.at.Edge) && at.Version == p.at.Version && at.Sum == p.at.Sum && at.Pending == p.at.Pending {
		return nil
	}
	switch {
	case len(at.Cursor) > maxCursor:
		return p.systemErrorf("the cursor has %d bytes, and at most %d can be remembered", len(at.Cursor), maxCursor)
	case len(at.Edge) > maxEdge:
		return p.systemErrorf("more than %d items have the cursor %.100q, so that it does not tell what is new: choose one that is finer", maxEdge, at.Cursor)
	}
	raw, err := json.Marshal(at)
	if err != nil {
		return err
	}
	if len(raw) > contract.MaxPosition {
		return p.systemErrorf("cursor and items have %d bytes, and at most %d can be remembered", len(raw), contract.MaxPosition)
	}
	if err := p.rt.Position.Store(ctx, raw); err != nil {
		return notKept(err)
	}
	p.at = &at
	return nil
}

// notKept is what an error of the position says: that the broker is away is not the system's.
func notKept(err error) error {
	var unavailable *sdk.UnavailableError
	if errors.Is(err, sdk.ErrMoved) || errors.As(err, &unavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotTaken, err)
}
