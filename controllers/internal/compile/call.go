package compile

import (
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/systems"
)

// The API's defaults of services and calls, for objects that were made without them.
const (
	DefaultCallTimeout   = 10 * time.Second
	DefaultMaxConcurrent = 64
	DefaultCacheSize     = 8 << 20
)

// Call is a Route that ends in a service, as the pods of its sources run it. Whether the service is there is no matter: who calls while it is
// not is told so.
func Call(i *v1alpha1.Integration, r *v1alpha1.Route) contract.Call {
	out := contract.Call{
		Route: r.Name, UID: string(r.UID), Generation: r.Generation,
		Integration: i.Name, Service: string(r.Spec.Call.Connector),
		Timeout:   contract.Duration(orDefault(r.Spec.Call.Timeout, DefaultCallTimeout)),
		Request:   mediation("", r.Spec.Filter, r.Spec.Steps),
		Suspended: Suspended(r.Spec.Suspend),
	}
	if response := r.Spec.Call.Response; response != nil {
		out.Response = mediation("call.response.", "", response.Steps)
	}
	return out
}

// Services that calls reach, each once.
func Services(calls []contract.Call) []contract.ServiceRef {
	var out []contract.ServiceRef
	seen := map[contract.ServiceRef]bool{}
	for _, c := range calls {
		ref := contract.ServiceRef{Integration: c.Integration, Service: c.Service}
		if !seen[ref] {
			out = append(out, ref)
		}
		seen[ref] = true
	}
	return out
}

// CallDigest is of everything but the generation.
func CallDigest(c contract.Call) (string, error) {
	c.Generation = 0
	return digest(c)
}

// CallDigests is RouteDigests of calls.
func CallDigests(calls []contract.Call) (string, error) {
	return digests(calls, func(c contract.Call) string { return RouteKey(c.Route, contract.CallDestination) }, CallDigest)
}

// service as its pods run it.
func service(c *v1alpha1.Connector, i *v1alpha1.Integration, system contract.System) *contract.Service {
	s := c.Spec.Service
	out := &contract.Service{
		System: system, MaxConcurrent: DefaultMaxConcurrent, Suspended: Suspended(c.Spec.Suspend, i.Spec.Suspend),
		Timeout: contract.Duration(orDefault(s.Timeout, DefaultCallTimeout)),
	}
	if s.MaxConcurrent != nil {
		out.MaxConcurrent = *s.MaxConcurrent
	}
	if s.Cache != nil {
		out.Cache = &contract.Cache{TTL: contract.Duration(orDefault(s.Cache.TTL, 0)), MaxBytes: DefaultCacheSize, Methods: s.Cache.Methods}
		if s.Cache.Size != nil {
			out.Cache.MaxBytes = s.Cache.Size.Value()
		}
	}
	text, err := systems.OpenAPI(s)
	if err != nil {
		text = s.OpenAPI.Inline // it has been refused; should a pod get it all the same, it says why it cannot work
	}
	out.OpenAPI = text
	return out
}

func orDefault(d v1alpha1.Duration, otherwise time.Duration) time.Duration {
	if d == "" {
		return otherwise
	}
	return duration(&d, otherwise)
}
