package contract

// Permissions of a broker user, as subjects.
type Permissions struct {
	Publish   []string
	Subscribe []string
}

// SourcePermissions of a source connector: its own messages and its own reports.
func SourcePermissions(namespace, integration, connector string) Permissions {
	return Permissions{
		Publish: []string{
			ConnectorEventSubjects(namespace, integration, connector),
			"status." + namespace + "." + connector + ".>",
		},
		Subscribe: []string{InboxPrefix(namespace, connector) + ".>"},
	}
}

// SinkDestination is one Route's destination that a sink serves.
type SinkDestination struct {
	Integration string
	Route       string
	Destination string
}

// SinkPermissions of a sink connector: its durable consumers, their dead letters, and its own reports.
func SinkPermissions(namespace, connector string, destinations []SinkDestination) Permissions {
	p := Permissions{
		Publish:   []string{"status." + namespace + "." + connector + ".>"},
		Subscribe: []string{InboxPrefix(namespace, connector) + ".>"},
	}
	for _, d := range destinations {
		stream := EventStream(namespace, d.Integration)
		durable := DurableName(namespace, d.Route, d.Destination)
		p.Publish = append(p.Publish,
			APIPrefix+".CONSUMER.MSG.NEXT."+stream+"."+durable,
			APIPrefix+".CONSUMER.INFO."+stream+"."+durable,
			"$JS.ACK."+stream+"."+durable+".>",
			"$JS.ACK.*.*."+stream+"."+durable+".>",
			DeadSubjects(namespace, d.Integration, d.Route, d.Destination),
		)
	}
	return p
}

// BusExports are the subjects that account BUS exports as services, and account EDGE imports. Those under $JS.API are imported
// under APIPrefix. The ones that answer with a stream of messages are marked.
func BusExports() []Export {
	return []Export{
		{Subject: "evt.>"},
		{Subject: "dead.>"},
		{Subject: "status.>"},
		{Subject: "$JS.ACK.>"},
		{Subject: "$JS.API.CONSUMER.INFO.>", Local: APIPrefix + ".CONSUMER.INFO.>"},
		{Subject: "$JS.API.CONSUMER.MSG.NEXT.>", Local: APIPrefix + ".CONSUMER.MSG.NEXT.>", Streams: true},
	}
}

// Export is one service that account BUS offers to account EDGE.
type Export struct {
	// Subject in account BUS.
	Subject string
	// Local subject in account EDGE, when it is another.
	Local string
	// Streams says that one request has many answers.
	Streams bool
}
