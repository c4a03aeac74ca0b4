package steps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// balanceStep lets a message pass in the pods of exactly one of several destinations. All of them choose the same one without asking each
// other, because they look at nothing but the message: at its id, or the key, and at when a source accepted it.
type balanceStep struct {
	key *Value
	// periods in order; a message belongs to the last one that began when it was accepted, or before.
	periods []period
}

// period is a time during which the weights stay the same.
type period struct {
	from time.Time
	// total of all weights; the destination's share is what lies between low and high.
	total, low, high uint64
}

func compileBalance(b *contract.LoadBalance) (*balanceStep, error) {
	s := &balanceStep{}
	if b.Key != "" {
		key, err := CompileValue(b.Key)
		if err != nil {
			return nil, &FieldError{Field: "loadBalance.key", Value: b.Key, Err: err}
		}
		s.key = key
	}
	first, err := shareOf(b.Destination, b.Weights)
	if err != nil {
		return nil, &FieldError{Field: "loadBalance.weights", Err: err}
	}
	s.periods = []period{first}
	for i, c := range b.Changes {
		p, err := shareOf(b.Destination, c.Weights)
		if err == nil && i > 0 && !c.From.After(b.Changes[i-1].From) {
			err = errors.New("each from must be later than the one before it")
		}
		if err != nil {
			return nil, &FieldError{Field: fmt.Sprintf("loadBalance.changes[%d]", i), Err: err}
		}
		p.from = c.From
		s.periods = append(s.periods, p)
	}
	return s, nil
}

func shareOf(destination string, weights map[string]int32) (p period, err error) {
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		w := weights[name]
		if w < 0 || w > contract.MaxWeight {
			return p, fmt.Errorf("the weight of %s must be 0 to %d", name, contract.MaxWeight)
		}
		if name == destination {
			p.low, p.high = p.total, p.total+uint64(w)
		}
		p.total += uint64(w)
	}
	if p.total == 0 {
		return p, errors.New("one of the weights must be more than 0")
	}
	return p, nil
}

func (s *balanceStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	hash := uint64(fnvOffset)
	if s.key == nil {
		hash = fnv(fnv(fnv(hash, m.Source), "\x00"), m.ID)
	} else {
		v, err := s.key.Eval(m)
		if err != nil {
			return false, fmt.Errorf("key: %w", err)
		}
		text, err := scalarText(v)
		if err != nil {
			return false, fmt.Errorf("key: %w", err)
		}
		hash = fnv(hash, text)
	}
	p := s.at(m)
	place, _ := bits.Mul64(mix(hash), p.total)
	return place >= p.low && place < p.high, nil
}

// at the time when the message was accepted. One that does not say when belongs to the first period, for every destination.
func (s *balanceStep) at(m *sdk.Message) period {
	if len(s.periods) == 1 {
		return s.periods[0]
	}
	accepted, err := time.Parse(time.RFC3339Nano, m.Accepted)
	if err != nil {
		return s.periods[0]
	}
	n := len(s.periods) - 1
	for n > 0 && accepted.Before(s.periods[n].from) {
		n--
	}
	return s.periods[n]
}

const fnvOffset = 14695981039346656037

// fnv is FNV-1a of 64 bits. It must never change: pods of different releases have to agree.
func fnv(hash uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		hash = (hash ^ uint64(s[i])) * 1099511628211
	}
	return hash
}

// mix spreads what FNV leaves alike in the high bits (the finaliser of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
