package loopback

import (
	"time"

	"github.com/metip/metip/connectors/contract"
)

// CallFlow is a source whose requests a service answers. No stream is involved.
type CallFlow struct{ Integration, Source, Route, Service string }

// CallUsers of a CallFlow, in NATS .creds format.
type CallUsers struct{ Source, Service []byte }

// PrepareCall makes the users of a call, as the operator's controllers do. timeout is the service's.
func (b *Broker) PrepareCall(f CallFlow, timeout time.Duration) (u CallUsers, err error) {
	session, err := b.registry.Session(b.name())
	if err != nil {
		return u, err
	}
	called := contract.ServiceRef{Integration: f.Integration, Service: f.Service}
	source, err := session.IssueUser(contract.UserName(Namespace, f.Source), contract.SourcePermissions(Namespace, f.Integration, f.Source, called), lifetime)
	if err != nil {
		return u, err
	}
	service, err := session.IssueUser(contract.UserName(Namespace, f.Service), contract.ServicePermissions(Namespace, f.Integration, f.Service, timeout), lifetime)
	return CallUsers{Source: source.Creds, Service: service.Creds}, err
}
