package steps

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// maxPartsBytes of all parts of one message.
const maxPartsBytes = 16 << 20

// Split makes several messages of one. It is no Step that Run could run: the engine runs the steps before it, takes the Parts, and runs the
// steps after it on each. It is safe for concurrent use.
type Split struct{ items *Body }

func compileSplit(s *contract.Split) (Step, error) {
	items, err := CompileBody(s.Items)
	return compiled(&Split{items}, "split.items", s.Items, err)
}

// Apply implements Step: a message that nobody splits is not delivered as a whole.
func (*Split) Apply(context.Context, *sdk.Message) (bool, error) {
	return false, errors.New("a message cannot be split here")
}

// Parts of a message: the bodies, in order.
type Parts struct {
	bodies []byte
	// ends of each body in bodies.
	ends []int
}

// Count of the parts.
func (p *Parts) Count() int { return len(p.ends) }

// Parts of a message. They depend on the message alone.
func (s *Split) Parts(m *sdk.Message) (p *Parts, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("the step panicked: %v", r)
		}
	}()
	v, err := s.items.make(m)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, errors.New("the expression yields no list")
	}
	if len(list) > contract.MaxParts {
		return nil, fmt.Errorf("the message has %d parts, and at most %d are allowed", len(list), contract.MaxParts)
	}
	p = &Parts{ends: make([]int, len(list))}
	for i, x := range list {
		body, err := encodeJSON(x, true)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i, err)
		}
		if len(p.bodies)+len(body) > maxPartsBytes {
			return nil, fmt.Errorf("the parts take more than %d MiB together", maxPartsBytes>>20)
		}
		p.bodies = append(p.bodies, body...)
		p.ends[i] = len(p.bodies)
	}
	return p, nil
}

// Part makes the message of a part, of the message that was split. It shares nothing with it that steps change.
func (p *Parts) Part(m *sdk.Message, i int) *sdk.Message {
	begin := 0
	if i > 0 {
		begin = p.ends[i-1]
	}
	part := &sdk.Message{
		ID: PartID(m.ID, i), Endpoint: m.Endpoint, Type: m.Type, Source: m.Source, Subject: m.Subject, Time: m.Time, Stored: m.Stored,
		Accepted: m.Accepted, Hops: m.Hops, // or Routes that feed each other in a circle would never end
		ContentType: "application/json", PartitionKey: m.PartitionKey, Format: sdk.FormatJSON,
		Headers: make(map[string]string, len(m.Headers)+3), Data: p.bodies[begin:p.ends[i]:p.ends[i]],
	}
	for name, value := range m.Headers {
		part.Headers[name] = value
	}
	part.Headers[contract.ExtensionSplitID] = m.ID
	part.Headers[contract.ExtensionSplitIndex] = strconv.Itoa(i)
	part.Headers[contract.ExtensionSplitCount] = strconv.Itoa(p.Count())
	return part
}

// PartID is the id of a part: the same for every attempt and every replay.
func PartID(id string, i int) string { return id + "/" + strconv.Itoa(i) }
