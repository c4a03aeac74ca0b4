package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Correlation says of a message what a step that keeps state has to know: which messages it belongs with, and its place among them.
// It is safe for concurrent use.
type Correlation struct {
	key, number *Value
	last        *Filter
}

// maxCorrelation is the longest key, in bytes.
const maxCorrelation = 256

// CompileCorrelation of a step that keeps state. An error is a *FieldError.
func CompileCorrelation(s contract.Step) (*Correlation, error) {
	c := &Correlation{}
	value := func(field, text string, into **Value) error {
		if text == "" {
			return nil
		}
		v, err := CompileValue(text)
		if err != nil {
			return &FieldError{Field: field, Value: text, Err: err}
		}
		*into = v
		return nil
	}
	switch {
	case s.Deduplicate != nil:
		return c, value("deduplicate.key", s.Deduplicate.Key, &c.key)
	case s.Aggregate != nil:
		if err := value("aggregate.key", s.Aggregate.Key, &c.key); err != nil {
			return nil, err
		}
		if text := s.Aggregate.When; text != "" {
			var err error
			if c.last, err = CompileFilter(text); err != nil {
				return nil, &FieldError{Field: "aggregate.when", Value: text, Err: err}
			}
		}
		return c, nil
	case s.Resequence != nil:
		if err := value("resequence.key", s.Resequence.Key, &c.key); err != nil {
			return nil, err
		}
		return c, value("resequence.number", s.Resequence.Number, &c.number)
	}
	return nil, &FieldError{Err: fmt.Errorf("the step keeps no state")}
}

// Key of a message: a text that is not empty, a number or a boolean. Without an expression all messages have the same, which is empty.
func (c *Correlation) Key(m *sdk.Message) (string, error) {
	if c.key == nil {
		return "", nil
	}
	return correlationKey(c.key, m)
}

// correlationKey is the value of an expression as a key: a text that is not empty, a number or a boolean.
func correlationKey(of *Value, m *sdk.Message) (string, error) {
	v, err := of.Eval(m)
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	switch v := v.(type) {
	case string:
		if v == "" || len(v) > maxCorrelation {
			return "", fmt.Errorf("key: it has %d bytes, and 1 to %d are allowed", len(v), maxCorrelation)
		}
		if !utf8.ValidString(v) {
			return "", errors.New("key: it is no text in UTF-8")
		}
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		return formatFloat(v), nil
	case json.Number:
		return string(v), nil
	}
	return "", fmt.Errorf("key: it is %T, not a text, number or boolean", v)
}

// Last tells whether a message is the last one of its group.
func (c *Correlation) Last(m *sdk.Message) (bool, error) {
	if c.last == nil {
		return false, nil
	}
	last, err := c.last.Match(m)
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	return last, nil
}

// Number of a message in its sequence.
func (c *Correlation) Number(m *sdk.Message) (int64, error) {
	v, err := c.number.Eval(m)
	if err != nil {
		return 0, fmt.Errorf("number: %w", err)
	}
	switch v := v.(type) {
	case int64:
		return v, nil
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v), nil
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("number: it is %v, not an integer of 64 bits", v)
}

// stateStep lets everything pass: the relay keeps the state.
type stateStep struct{}

func compileState(s contract.Step) (Step, error) {
	if _, err := CompileCorrelation(s); err != nil {
		return nil, err
	}
	return stateStep{}, nil
}

// Apply implements Step.
func (stateStep) Apply(context.Context, *sdk.Message) (bool, error) { return true, nil }
