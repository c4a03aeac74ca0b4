package engine

import (
	"context"
	"fmt"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// door judges bodies by the source's schema, before anything is stored. Large bodies are decoded only as far as there is memory for it.
type door struct {
	schema *steps.Schema
	bodies *share
}

// newDoor of a source; nil where it has no schema.
func newDoor(s *contract.Schema) (*door, error) {
	if s == nil {
		return nil, nil
	}
	schema, err := steps.CompileSchema(s.Text)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	_, decoded := memoryShares(1)
	return &door{schema, decoded.join(func() {})}, nil
}

// judge messages: all of them, or none is stored.
func (p *publisher) judge(ctx context.Context, messages []*sdk.Message) error {
	for i, m := range messages {
		err := p.door.check(ctx, m)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			p.metrics.refused("cancelled", len(messages))
			return ctx.Err()
		}
		p.metrics.refused("schema", len(messages))
		if len(messages) > 1 {
			err = fmt.Errorf("message %d: %w", i, err)
		}
		return fmt.Errorf("%w: %w", sdk.ErrSchema, err)
	}
	return nil
}

func (d *door) check(ctx context.Context, m *sdk.Message) error {
	if len(m.Data) <= smallBody {
		return d.schema.Check(ctx, m)
	}
	room := min(worstDecoded(len(m.Data)), d.bodies.of.total)
	if !d.bodies.await(ctx, room) {
		return ctx.Err()
	}
	defer func() {
		m.SetData(m.Data) // lets go of what was decoded
		d.bodies.give(room)
	}()
	return d.schema.Check(ctx, m)
}
