package enginetest

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

// Lanes makes the durable consumers of an ordered destination that reads everything of the Integration, as the operator does but for the times.
func (s *Server) Lanes(namespace, integration, route, destination string, order contract.Order, lanes int, pinTime, ackWait time.Duration) []jetstream.Consumer {
	s.t.Helper()
	all := make([]jetstream.Consumer, lanes)
	for i := range all {
		filters := []string{contract.MarkSubject(namespace, integration)}
		for slot := i; slot < contract.Slots; slot += lanes {
			filters = append(filters, "evt."+namespace+"."+integration+".*."+strconv.Itoa(slot)+".>", contract.ReplaySubject(namespace, integration, route, destination, slot))
		}
		all[i] = must[jetstream.Consumer](s.t, "make a lane")(s.Admin().CreateOrUpdateConsumer(s.t.Context(), contract.EventStream(namespace, integration), jetstream.ConsumerConfig{
			Durable:   contract.LaneName(contract.DurableName(namespace, route, destination), i),
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, MaxAckPending: order.Window(),
			PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{contract.LaneGroup}, PinnedTTL: pinTime,
			FilterSubjects: filters,
		}))
	}
	return all
}
