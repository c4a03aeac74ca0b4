package http

import (
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// TestSourcesThatCannotCheckIn: what would have to look into a body that is not held in memory is refused, whatever the API server let pass.
func TestSourcesThatCannotCheckIn(t *testing.T) {
	for name, try := range map[string]struct {
		source contract.Source
		auth   contract.AuthKind
		ok     bool
	}{
		"binary":        {contract.Source{Format: sdk.FormatBinary}, contract.AuthBasic, true},
		"JSON":          {contract.Source{Format: sdk.FormatJSON}, contract.AuthBasic, false},
		"schema":        {contract.Source{Format: sdk.FormatBinary, Schema: &contract.Schema{}}, contract.AuthBasic, false},
		"partition key": {contract.Source{Format: sdk.FormatBinary, PartitionKey: "subject"}, contract.AuthBasic, false},
		"signature":     {contract.Source{Format: sdk.FormatBinary}, contract.AuthHMAC, false},
	} {
		c := contract.Config{Source: &try.source, Auth: contract.Auth{Kind: try.auth}}
		s, err := NewSource(fakes.Runtime(t, &c, &fakes.Secrets{}, nil), []byte(`{"maxBodySize":"9Mi"}`))
		if (err == nil) != try.ok {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewSource(fakes.Runtime(t, &c, &fakes.Secrets{}, nil), []byte(`{"maxBodySize":"8Mi"}`)); err != nil {
			t.Errorf("%s, up to what the bus carries: %v", name, err)
		}
		if s == nil {
			continue
		}
		// An engine that takes no large bodies is told so at the start, not by the first of them.
		if err := s.(*source).handler.takeLarge(&fakes.Publisher{}); err == nil {
			t.Error("a publisher without large bodies is taken")
		}
	}
}
