package compile

import (
	"slices"
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// The API's defaults of steps that keep state, and of the size of the state, for objects that were made without them.
const (
	DefaultWindow            = 24 * time.Hour
	DefaultResequenceTimeout = time.Minute
	DefaultStateSize         = 256 << 20
)

// KeepsState tells whether a step needs what other messages have left behind.
func KeepsState(s *v1alpha1.Step) bool {
	return s.Deduplicate != nil || s.Aggregate != nil || s.Resequence != nil
}

// NeedsState tells whether a Route has a step that keeps state.
func NeedsState(r *v1alpha1.Route) bool {
	has := func(list []v1alpha1.Step) bool {
		return slices.ContainsFunc(list, func(s v1alpha1.Step) bool { return KeepsState(&s) })
	}
	return has(r.Spec.Steps) || slices.ContainsFunc(r.Spec.To, func(d v1alpha1.Destination) bool { return has(d.Steps) })
}

// KeepsPosition tells whether a source keeps its position in the state of its Integration: its system does not remember what was taken in.
func KeepsPosition(c *v1alpha1.Connector) bool {
	s := c.Spec.Source
	return s != nil && (s.Generator != nil || s.HTTPPoll != nil || s.Postgres != nil && s.Postgres.Table != nil || s.Custom != nil && s.Custom.Position)
}

// StateSize at which the stream of an Integration's state is full.
func StateSize(r *v1alpha1.Retention) int64 {
	if r != nil && r.StateSize != nil {
		return r.StateSize.Value()
	}
	return DefaultStateSize
}

func setState(out *contract.Step, s *v1alpha1.Step) {
	if d := s.Deduplicate; d != nil {
		out.Deduplicate = &contract.Deduplicate{Key: string(d.Key), Window: contract.Duration(duration(&d.Window, DefaultWindow))}
	}
	if a := s.Aggregate; a != nil {
		out.Aggregate = &contract.Aggregate{Key: string(a.Key), When: string(a.When), Timeout: contract.Duration(duration(a.Timeout, 0))}
		if a.Count != nil {
			out.Aggregate.Count = *a.Count
		}
	}
	if r := s.Resequence; r != nil {
		out.Resequence = &contract.Resequence{
			Key: string(r.Key), Number: string(r.Number), Start: 1, Timeout: contract.Duration(duration(&r.Timeout, DefaultResequenceTimeout)),
		}
		if r.Start != nil {
			out.Resequence.Start = *r.Start
		}
	}
}
