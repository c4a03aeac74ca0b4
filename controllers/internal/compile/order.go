package compile

import (
	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// setOrder of a destination: the destination's own, else the Route's. Lanes and key are of the level that says the order, and an Integration
// says none: that would change under the Routes.
func setOrder(out *contract.Delivery, r *v1alpha1.Route, d *v1alpha1.Destination) {
	for _, level := range []*v1alpha1.Delivery{d.Delivery, r.Spec.Delivery} {
		if level == nil || level.Order == "" {
			continue
		}
		switch level.Order {
		case v1alpha1.OrderStrict:
			out.Order, out.Lanes = contract.OrderStrict, 1
		case v1alpha1.OrderPerKey:
			out.Order, out.Lanes, out.Key = contract.OrderPerKey, int(level.Lanes), string(level.Key)
			switch {
			case out.Key != "": // which slot a message is in says nothing of this key
				out.Lanes = 1
			case out.Lanes == 0:
				out.Lanes = contract.DefaultLanes
			}
		}
		return
	}
}

// Durable is one durable consumer of a destination, as wanted.
type Durable struct {
	Name    string
	Filters []string
	// Lanes of the destination; 0 where its order is not kept. Window is how much a lane may hold.
	Lanes, Window int
	// OnePod reads it at a time, so that a rate holds however many there are. Lanes are so anyway.
	OnePod bool
}

// Durables of a destination: one, or one for each lane.
func Durables(r *v1alpha1.Route, d *v1alpha1.Destination) []Durable {
	name := contract.DurableName(r.Namespace, r.Name, string(d.Name))
	var delivery contract.Delivery
	setOrder(&delivery, r, d)
	if delivery.Lanes == 0 {
		return []Durable{{Name: name, Filters: Filters(r, string(d.Name)), OnePod: Throttled(r, d)}}
	}
	integration := string(r.Spec.IntegrationRef.Name)
	filters := append(EventFilters(r), contract.ReplayFilter(r.Namespace, integration, r.Name, string(d.Name)))
	out := make([]Durable, delivery.Lanes)
	for i := range out {
		out[i] = Durable{
			Name:    contract.LaneName(name, i),
			Filters: append(contract.LaneFilters(filters, delivery.Lanes, i), contract.MarkSubject(r.Namespace, integration)),
			Lanes:   delivery.Lanes, Window: delivery.Order.Window(),
		}
	}
	return out
}
