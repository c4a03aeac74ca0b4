package compile

import (
	"slices"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// DefaultClaimsSize is the API's default, for objects that were made without it.
const DefaultClaimsSize = 1 << 30

// TakesClaims tells whether a Connector takes bodies that are larger than the bus carries.
func TakesClaims(c *v1alpha1.Connector) bool {
	s := c.Spec.Source
	if s != nil && s.Files != nil {
		whole := s.Files.Records.Whole
		return whole != nil && whole.MaxSize != nil && whole.MaxSize.Value() > contract.MaxMessageSize
	}
	return s != nil && s.HTTP != nil && s.HTTP.MaxBodySize != nil && s.HTTP.MaxBodySize.Value() > contract.MaxMessageSize
}

// ClaimsSize at which the stream of an Integration's claim checks is full.
func ClaimsSize(r *v1alpha1.Retention) int64 {
	if r != nil && r.ClaimsSize != nil {
		return r.ClaimsSize.Value()
	}
	return DefaultClaimsSize
}

// sources are the Connectors that a Route reads from, sorted. An event of the bus never has a claim.
func sources(r *v1alpha1.Route) []string {
	var out []string
	for _, f := range r.Spec.From {
		if f.Events == nil {
			out = append(out, string(f.Connector))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
