package contract

// The position of a source is how far it has read in a system that does not remember that itself: a small document of each such source in the
// state of its Integration. It is written with the sequence of the one before it, after what it covers is on the bus, and only the source itself,
// and the relay, may write it. It goes with the Connector: another one of its name begins anew, as its ids do (MessageID).

// MaxPosition is the largest document, in bytes.
const MaxPosition = 4 << 10

// positionToken ends the subject of a position. No destination's documents are at its place in a subject: those have more parts.
const positionToken = "position"

// PositionSubject of a source.
func PositionSubject(namespace, integration, connectorUID string) string {
	return "state." + namespace + "." + integration + "." + connectorUID + "." + positionToken
}

// PositionSubjects are those of all sources of an Integration.
func PositionSubjects(namespace, integration string) string {
	return PositionSubject(namespace, integration, "*")
}

// ParsePositionSubject gives the UID of the Connector whose position a subject of PositionSubjects is.
func ParsePositionSubject(namespace, integration, subject string) (connectorUID string, ok bool) {
	prefix, suffix := "state."+namespace+"."+integration+".", "."+positionToken
	if len(subject) <= len(prefix)+len(suffix) || subject[:len(prefix)] != prefix || subject[len(subject)-len(suffix):] != suffix {
		return "", false
	}
	return subject[len(prefix) : len(subject)-len(suffix)], true
}

// PositionGet is where the document of one source is read.
func PositionGet(namespace, integration, connectorUID string) string {
	return APIPrefix + ".DIRECT.GET." + StateStream(namespace, integration) + "." + PositionSubject(namespace, integration, connectorUID)
}

// WithPosition are the permissions of a source besides: to write and to read its own position.
func (p Permissions) WithPosition(namespace, integration, connectorUID string) Permissions {
	p.Publish = append(p.Publish, PositionSubject(namespace, integration, connectorUID), PositionGet(namespace, integration, connectorUID))
	return p
}
