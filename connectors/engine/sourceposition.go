package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// sourcePosition is the sdk.Position of one source: a document in the state of the Integration, under the one subject that the pod may write and read.
type sourcePosition struct {
	conn         *connection
	integration  string
	subject, get string
	// sequence of the document that was seen last; 0 for none.
	sequence uint64
}

func newSourcePosition(conn *connection, who contract.Connector) *sourcePosition {
	return &sourcePosition{
		conn: conn, integration: who.Integration, subject: contract.PositionSubject(who.Namespace, who.Integration, who.UID),
		get: contract.PositionGet(who.Namespace, who.Integration, who.UID),
	}
}

// Load implements sdk.Position.
func (p *sourcePosition) Load(ctx context.Context) ([]byte, error) {
	document, sequence, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	p.sequence = sequence
	return document, nil
}

// read the document. Any server with a copy answers, so that it may be a moment old.
func (p *sourcePosition) read(ctx context.Context) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	m, err := p.conn.nc.RequestWithContext(ctx, p.get, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, 0, p.missing()
	case err != nil:
		return nil, 0, fmt.Errorf("reading the source's position: %w", err)
	}
	switch status := first(m.Header, "Status"); {
	case status == "404":
		return nil, 0, nil
	case status != "":
		return nil, 0, fmt.Errorf("reading the source's position: %s %s", status, first(m.Header, "Description"))
	case first(m.Header, headerSubject) != p.subject:
		return nil, 0, fmt.Errorf("reading the source's position: the broker answers with %.100q", first(m.Header, headerSubject))
	}
	sequence, err := strconv.ParseUint(first(m.Header, headerSequence), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the source's position: %w", err)
	}
	return m.Data, sequence, nil
}

// Store implements sdk.Position.
func (p *sourcePosition) Store(ctx context.Context, document []byte) error {
	if len(document) > contract.MaxPosition {
		return fmt.Errorf("the source's position has %d bytes, and at most %d are allowed", len(document), contract.MaxPosition)
	}
	sequence, err := publishExpecting(ctx, p.conn.nc, &nats.Msg{
		Subject: p.subject, Data: document, Header: nats.Header{headerExpectedLastBySubj: {strconv.FormatUint(p.sequence, 10)}},
	})
	switch {
	case err == nil:
		p.sequence = sequence
		return nil
	case errors.Is(err, errConflict):
		return p.moved(ctx, document)
	case errors.Is(err, nats.ErrNoResponders):
		return p.missing()
	case errors.Is(err, errStateFull):
		return sdk.Unavailable(contract.ReasonStreamFull, fmt.Errorf("the source's position cannot be stored, for the state of Integration %s is full: raise spec.retention.stateSize", p.integration))
	default:
		return fmt.Errorf("storing the source's position: %w", err)
	}
}

// moved: what is there is another pod's, or the very document, whose confirmation was lost.
func (p *sourcePosition) moved(ctx context.Context, document []byte) error {
	have, sequence, err := p.read(ctx)
	if err != nil {
		return err
	}
	if sequence > p.sequence && bytes.Equal(have, document) {
		p.sequence = sequence
		return nil
	}
	return sdk.ErrMoved
}

func (p *sourcePosition) missing() error {
	return sdk.Unavailable(contract.ReasonBrokerUnreachable, fmt.Errorf("the state of Integration %s, where the source keeps its position, is not on the broker yet, or its servers are away", p.integration))
}
