package http

import (
	"context"
	"errors"
	"strconv"

	"github.com/metip/metip/connectors/sdk"
)

// whole takes in the answer as a whole, where it is another than before. That there is a new one is stored first, for nobody could tell afterwards
// whether the bus has it: an answer that becomes what it was must not be taken for the one before.
func (p *poll) whole(ctx context.Context) error {
	a, err := p.ask(ctx, p.url)
	if err != nil || a == nil {
		return err
	}
	sum, at := digest(a.body), *p.at
	if sum == at.Sum && !at.Pending {
		p.seen = a.validator
		return nil
	}
	if err := sdk.CheckFormat(p.rt.Config.Source.Format, a.body); err != nil {
		return p.systemErrorf("the answer is not in the source's format: %w", err)
	}
	if sum != at.Sum {
		at.Version, at.Sum, at.Pending = at.Version+1, sum, true
		if err := p.publish(ctx, at); err != nil {
			return err
		}
	}
	m := &sdk.Message{
		ID: strconv.FormatUint(at.Version, 10) + "/" + sum, Endpoint: p.url.Path, Subject: p.url.Path, PartitionKey: p.url.Path,
		ContentType: a.contentType, Data: a.body,
	}
	at.Pending = false
	switch err := p.publish(ctx, at, m); {
	case errors.Is(err, sdk.ErrInvalid):
		return p.systemErrorf("the bus cannot take the answer: %w", err)
	case err != nil:
		return err
	}
	p.seen = a.validator
	return nil
}
