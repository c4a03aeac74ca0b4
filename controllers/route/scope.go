package route

import (
	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/refs"
)

// scope is what the phases of a pass share.
type scope struct {
	route *v1alpha1.Route

	area refs.Area
	// sources by name; nil for one that does not exist.
	sources map[string]*v1alpha1.Connector
	// resolved is the Route with the texts of its schemas; nil while one is missing or invalid.
	resolved *v1alpha1.Route
	// unresolved is the first reference that leads nowhere or where it may not.
	unresolved error

	// asked are the services that steps ask, and may.
	asked []*v1alpha1.Connector

	destinations []destination
	// call of a Route that ends in a service; nil for one with destinations.
	call *call
}

func newScope(r *v1alpha1.Route) *scope {
	s := &scope{route: r, sources: map[string]*v1alpha1.Connector{}}
	if r.Spec.Call != nil {
		s.call = &call{}
	}
	return s
}

// destination of the Route in a pass.
type destination struct {
	spec *v1alpha1.Destination
	// connector or nil; for an event it is the relay of the Integration. refused says why it may not be delivered to.
	connector *v1alpha1.Connector
	refused   error
	// programmed: the durable consumer is as it should be.
	programmed bool
	// taken: the Connector's present configuration holds the destination as it is now.
	taken bool
	// reports of the Connector's pods; former is one that still works by what the Route said before, or "".
	reports []bus.PodReport
	former  string
}

// host is who delivers, for messages.
func (d *destination) host() string {
	if integration, ok := contract.RelayOf(d.connector.Name); ok {
		return "the relay of Integration " + integration
	}
	return "Connector " + d.connector.Name
}
