package fakes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Position is a file that keeps a source's position as the broker does, for all pods that have it, one after the other or at the same time in one
// process.
type Position struct {
	file     string
	sequence int
	mu       sync.Mutex
	err      error
	stores   int
}

// writing holds all positions of the process: two pods of it may have the same file.
var writing sync.Mutex

// NewPosition of a source, in a file that need not be there.
func NewPosition(file string) *Position { return &Position{file: file} }

// Fail makes Store answer err from now on; nil lets it work.
func (p *Position) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Stores is how often a document was stored.
func (p *Position) Stores() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stores
}

// Load implements sdk.Position.
func (p *Position) Load(context.Context) ([]byte, error) {
	writing.Lock()
	defer writing.Unlock()
	document, sequence, err := readPosition(p.file)
	if err == nil {
		p.sequence = sequence
	}
	return document, err
}

// Store implements sdk.Position.
func (p *Position) Store(_ context.Context, document []byte) error {
	p.mu.Lock()
	failure := p.err
	p.mu.Unlock()
	if failure != nil {
		return failure
	}
	if len(document) > contract.MaxPosition {
		return fmt.Errorf("the position has %d bytes", len(document))
	}
	writing.Lock()
	defer writing.Unlock()
	_, sequence, err := readPosition(p.file)
	if err != nil {
		return err
	}
	if sequence != p.sequence {
		return sdk.ErrMoved
	}
	raw := append(append(strconv.AppendInt(nil, int64(sequence+1), 10), '\n'), document...)
	if err := os.WriteFile(p.file+".new", raw, 0o600); err != nil {
		return err
	}
	if err := os.Rename(p.file+".new", p.file); err != nil {
		return err
	}
	p.sequence++
	p.mu.Lock()
	p.stores++
	p.mu.Unlock()
	return nil
}

// ReadPosition is the document in a file; nil where there is none.
func ReadPosition(file string) ([]byte, error) {
	writing.Lock()
	defer writing.Unlock()
	document, _, err := readPosition(file)
	return document, err
}

func readPosition(file string) (document []byte, sequence int, err error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	first, document, ok := bytes.Cut(raw, []byte("\n"))
	if !ok {
		return nil, 0, fmt.Errorf("%s is no position", file)
	}
	sequence, err = strconv.Atoi(string(first))
	return document, sequence, err
}
