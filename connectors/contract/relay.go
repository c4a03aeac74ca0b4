package contract

import (
	"strconv"
	"strings"
)

// The relay of an Integration is a pod like a sink connector's whose system is the bus itself: it publishes again what Routes deliver to an
// event. Wherever connectors go by their name (broker user, reports, labels, the key of the credentials) it goes by RelayName, which no
// Connector can have.

const (
	// RelaySystem is the system of a relay's sink.
	RelaySystem = "event"
	// RelayToken stands in a subject where a connector's name does in others.
	RelayToken = "_relay"
	// MaxHops is how often a message may pass a relay: Routes that feed each other in a circle end there.
	MaxHops = 16
	// HeaderHops is how often a message has passed a relay; missing means never.
	HeaderHops = "metip-hops"
	// DeadReasonHopLimit is of a message that has passed a relay MaxHops times: Routes feed each other in a circle.
	DeadReasonHopLimit = "HopLimit"
)

// EventOperation is the operation of a destination that is the bus itself: an event, or an entry of a table.
type EventOperation struct {
	// Type of the events.
	Type string `json:"type,omitempty"`
	// Table that is written; nil for an event.
	Table *TableOperation `json:"table,omitempty"`
}

// RelayName of an Integration's relay.
func RelayName(integration string) string { return integration + RelayToken }

// RelayOf is the inverse of RelayName: the Integration, or false for a connector's name.
func RelayOf(name string) (integration string, ok bool) { return strings.CutSuffix(name, RelayToken) }

// RelayEventSubjects are the subjects that a relay may publish.
func RelayEventSubjects(namespace, integration string) string {
	return ConnectorEventSubjects(namespace, integration, RelayToken)
}

// RelayFilter is the subject filter of a Route that reads an Integration's own events of a type. The empty type means all of them.
func RelayFilter(namespace, integration, eventType string) string {
	return EventFilter(namespace, integration, RelayToken, eventType)
}

// RelaySourcePrefix begins the ce-source of every message of a relay.
func RelaySourcePrefix(namespace, integration string) string {
	return "/metip/" + namespace + "/" + integration + "/" + RelayToken + "/"
}

// RelaySource is the ce-source of the events of a destination, as far as it is the same for all of them. What follows is the source of the
// message that the event was made of: ids are unique within a source, and stay so.
func RelaySource(namespace, integration, route, destination string) string {
	return RelaySourcePrefix(namespace, integration) + route + "/" + destination + "?from="
}

// RelayMessageID is the id that the broker de-duplicates the relay's messages by: the same for every attempt. It begins as no source
// connector's does, which is a Connector's UID.
func RelayMessageID(route, destination, original string, part int) string {
	return RelayToken + "/" + route + "/" + destination + "/" + strconv.Itoa(part) + "/" + original
}

// RelayPermissions of a relay: those of a sink, to publish its own messages, and to write and read the state of its Integration.
func RelayPermissions(namespace, integration string, destinations []SinkDestination, calls ...ServiceRef) Permissions {
	p := SinkPermissions(namespace, RelayName(integration), destinations, calls...)
	p.Publish = append(p.Publish, RelayEventSubjects(namespace, integration), StateSubjects(namespace, integration),
		APIPrefix+".DIRECT.GET."+StateStream(namespace, integration))
	return p
}
