package contract

import (
	"fmt"
	"strconv"
	"strings"
)

// Kubernetes names of MetIP's objects hold no `_` and no `.`, hence the joins below are unambiguous.

const (
	// StatusStream keeps the last report of every pod for a short while.
	StatusStream = "metip_status"
	// StatusSubjects is what StatusStream stores.
	StatusSubjects = "status.>"
	// APIPrefix is where connectors (account EDGE) find the JetStream API that account BUS exports.
	APIPrefix = "bus.API"
	// Slots is the number of slots that messages are spread over by their partition key.
	Slots = 16
)

// EventStream is the stream of an Integration's messages.
func EventStream(namespace, integration string) string { return namespace + "_" + integration }

// DeadStream is the stream of an Integration's dead letters.
func DeadStream(namespace, integration string) string { return namespace + "_" + integration + "_dead" }

// EventSubjects are all subjects of an Integration's messages.
func EventSubjects(namespace, integration string) string {
	return "evt." + namespace + "." + integration + ".>"
}

// ConnectorEventSubjects are the subjects that one source may publish.
func ConnectorEventSubjects(namespace, integration, connector string) string {
	return "evt." + namespace + "." + integration + "." + connector + ".>"
}

// EventSubject is the subject of one message: evt.<namespace>.<integration>.<connector>.<slot>.<type...>.
func EventSubject(namespace, integration, connector string, slot int, eventType string) string {
	return "evt." + namespace + "." + integration + "." + connector + "." + strconv.Itoa(slot) + "." + eventType
}

// EventFilter is the subject filter of a Route that reads a connector's messages of a type, in any slot. The empty type
// means all of them.
func EventFilter(namespace, integration, connector, eventType string) string {
	if eventType == "" {
		eventType = ">"
	}
	return "evt." + namespace + "." + integration + "." + connector + ".*." + eventType
}

// MarkSubject is the subject of the marks that let the floor of an idle consumer move (trimming).
func MarkSubject(namespace, integration string) string {
	return "mark." + namespace + "." + integration
}

// DeadSubjects are the subjects of a destination's dead letters.
func DeadSubjects(namespace, integration, route, destination string) string {
	return "dead." + namespace + "." + integration + "." + route + "." + destination + ".>"
}

// DeadSubject is the subject of one dead letter. It holds the sequence of the original in the event stream, so that it is written
// once however often it is tried, and redrive: 0 for the original itself and, for a copy that a Replay made of it, the copy's own sequence.
// So no two deliveries of a message share a dead letter.
func DeadSubject(namespace, integration, route, destination string, sequence, redrive uint64) string {
	return fmt.Sprintf("dead.%s.%s.%s.%s.%d-%d", namespace, integration, route, destination, sequence, redrive)
}

// DurableName is the durable consumer of a Route's destination.
func DurableName(namespace, route, destination string) string {
	return namespace + "_" + route + "_" + destination
}

// StatusSubject is where a pod reports.
func StatusSubject(namespace, connector, pod string) string {
	return "status." + namespace + "." + connector + "." + pod
}

// ParseStatusSubject is the inverse of StatusSubject.
func ParseStatusSubject(subject string) (namespace, connector, pod string, ok bool) {
	p := strings.Split(subject, ".")
	if len(p) != 4 || p[0] != "status" {
		return "", "", "", false
	}
	return p[1], p[2], p[3], true
}

// UserName is the name of a connector's broker user, and the token of its inbox.
func UserName(namespace, connector string) string { return namespace + "_" + connector }

// InboxPrefix is the inbox of a connector's broker user.
func InboxPrefix(namespace, connector string) string {
	return "_INBOX." + UserName(namespace, connector)
}

// Slot of a partition key, from 0 to Slots-1.
func Slot(partitionKey string) int {
	h := uint32(2166136261) // FNV-1a, 32 bits, written out so that nothing is allocated for each message
	for i := 0; i < len(partitionKey); i++ {
		h = (h ^ uint32(partitionKey[i])) * 16777619
	}
	return int(h % Slots)
}

// MessageID is the id that the broker de-duplicates by: the Connector's UID, the endpoint or table, and what the source
// calls the message. Ids are unique over a whole stream, hence the first two.
func MessageID(connectorUID, endpoint, id string) string {
	return connectorUID + "/" + strings.Trim(endpoint, "/") + "/" + id
}
