package contract

import "time"

// Permissions of a broker user, as subjects.
type Permissions struct {
	Publish []string
	// Subscribe lists subjects; one that is followed by a space and a name may only be subscribed to in the queue group of that name.
	Subscribe []string
	// Responses lets the user answer the requests that it is sent; nil means that it may not.
	Responses *Responses
}

// Responses bound the answers to one request.
type Responses struct {
	Max int
	TTL time.Duration
}

// ServicePermissions of a service connector: to take its own requests, in turn with its other pods, to hear that one is cancelled, to
// answer each once, and its own reports. timeout is the service's.
func ServicePermissions(namespace, integration, connector string, timeout time.Duration) Permissions {
	subject := ServiceSubject(namespace, integration, connector)
	return Permissions{
		Publish: []string{"status." + namespace + "." + connector + ".>"},
		Subscribe: []string{
			subject + " " + subject,
			CancelSubject(namespace, integration, connector),
			InboxPrefix(namespace, connector) + ".>",
		},
		Responses: &Responses{Max: 1, TTL: timeout + ServiceReplyGrace},
	}
}

// SourcePermissions of a source connector: its own messages, its own reports, and the services that it calls.
func SourcePermissions(namespace, integration, connector string, calls ...ServiceRef) Permissions {
	p := CallerPermissions(namespace, connector, calls...)
	p.Publish = append(p.Publish, ConnectorEventSubjects(namespace, integration, connector))
	return p
}

// CallerPermissions of a source whose requests are answered: the services that it calls, and its own reports. It stores nothing.
func CallerPermissions(namespace, connector string, calls ...ServiceRef) Permissions {
	p := Permissions{
		Publish:   []string{"status." + namespace + "." + connector + ".>"},
		Subscribe: []string{InboxPrefix(namespace, connector) + ".>"},
	}
	for _, s := range calls {
		p.Publish = append(p.Publish, CallSubjects(namespace, s)...)
	}
	return p
}

// SinkDestination is one Route's destination that a sink serves.
type SinkDestination struct {
	Integration string
	Route       string
	Destination string
	// Lanes of the destination; 0 where its order is not kept.
	Lanes int
	// Sources are the Connectors that the Route reads from, whose claims may be read.
	Sources []string
}

// SinkPermissions of a sink connector: its durable consumers, their dead letters, the claims that their messages may name, its own reports, and
// the services that its Routes ask.
func SinkPermissions(namespace, connector string, destinations []SinkDestination, calls ...ServiceRef) Permissions {
	p := Permissions{
		Publish:   []string{"status." + namespace + "." + connector + ".>"},
		Subscribe: []string{InboxPrefix(namespace, connector) + ".>"},
	}
	for _, d := range destinations {
		stream := EventStream(namespace, d.Integration)
		for _, durable := range Durables(DurableName(namespace, d.Route, d.Destination), d.Lanes) {
			p.Publish = append(p.Publish,
				APIPrefix+".CONSUMER.MSG.NEXT."+stream+"."+durable,
				APIPrefix+".CONSUMER.INFO."+stream+"."+durable,
				"$JS.ACK."+stream+"."+durable+".>",
				"$JS.ACK.*.*."+stream+"."+durable+".>",
			)
			// Who takes a lane over goes back to what was acknowledged last, and who leaves it says so. More than its own place nobody can move
			// by that.
			if d.Lanes > 0 {
				p.Publish = append(p.Publish, APIPrefix+".CONSUMER.RESET."+stream+"."+durable, APIPrefix+".CONSUMER.UNPIN."+stream+"."+durable)
			}
		}
		p.Publish = append(p.Publish, DeadSubjects(namespace, d.Integration, d.Route, d.Destination))
		p.Publish = append(p.Publish, d.claimReads(namespace)...)
	}
	for _, s := range calls {
		p.Publish = append(p.Publish, CallSubjects(namespace, s)...)
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
		{Subject: "state.>"},
		{Subject: "blob.>"},
		{Subject: "table.>"},
		{Subject: "$JS.ACK.>"},
		{Subject: "$JS.API.DIRECT.GET.>", Local: APIPrefix + ".DIRECT.GET.>", Streams: true},
		{Subject: "$JS.API.CONSUMER.INFO.>", Local: APIPrefix + ".CONSUMER.INFO.>"},
		{Subject: "$JS.API.CONSUMER.RESET.>", Local: APIPrefix + ".CONSUMER.RESET.>"},
		{Subject: "$JS.API.CONSUMER.UNPIN.>", Local: APIPrefix + ".CONSUMER.UNPIN.>"},
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
