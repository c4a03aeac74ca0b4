package systems

import (
	"encoding/json"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// The roles of a Connector, as status.role says them.
const (
	RoleSource  = "Source"
	RoleSink    = "Sink"
	RoleService = "Service"
)

// System is the system of one Connector.
type System struct {
	// Name of the union member, which is its name in the data plane's catalogue too.
	Name string
	// Role is RoleSource, RoleSink or RoleService.
	Role string
	// Options are the union member without what is the operator's alone.
	Options any
	// Endpoint for the status: where the system is, or where the Connector listens. Never with credentials.
	Endpoint string
	// Listens: the Connector has a Service.
	Listens bool
	// AllowFrom limits who can reach it; empty is everybody.
	AllowFrom []networkingv1.NetworkPolicyPeer
	// Ports that the Connector calls.
	Ports []int32
	// check the expressions; path is that of the union member.
	check func(path *field.Path) field.ErrorList
	// fits tells whether an operation of the system goes with the options; nil where each does.
	fits func(operation any) error
}

// Fits tells whether an operation, of the same system, goes with how the Connector is set; the error says what to change.
func (s System) Fits(o *Operation) error {
	if s.fits == nil {
		return nil
	}
	return s.fits(o.Options)
}

// OptionsJSON is what the data plane reads.
func (s System) OptionsJSON() (json.RawMessage, error) { return json.Marshal(s.Options) }

// Check compiles every expression of the options.
func (s System) Check() field.ErrorList {
	if s.check == nil {
		return nil
	}
	role := map[string]string{RoleSource: "source", RoleSink: "sink", RoleService: "service"}[s.Role]
	return s.check(field.NewPath("spec", role, s.Name))
}

// Of a Connector. The schema holds exactly one member; an object that has none is an error.
func Of(c *v1alpha1.Connector) (System, error) {
	for _, describe := range catalog {
		if s := describe(c); s != nil {
			return *s, nil
		}
	}
	return System{}, fmt.Errorf("spec has no system that this operator knows")
}

// Relay is the system of an Integration's relay: the bus.
func Relay() System {
	return System{Name: contract.RelaySystem, Role: RoleSink, Options: struct{}{}, Endpoint: "the bus"}
}

// Operation of a destination.
type Operation struct {
	// Name of the system.
	Name string
	// Options of the operation.
	Options any
	check   func(path *field.Path) field.ErrorList
}

// OptionsJSON is what the data plane reads.
func (o Operation) OptionsJSON() (json.RawMessage, error) { return json.Marshal(o.Options) }

// Check compiles every expression of the operation; path is that of the union.
func (o Operation) Check(path *field.Path) field.ErrorList {
	if o.check == nil {
		return nil
	}
	return o.check(path.Child(o.Name))
}

// OperationOf a destination; nil when it has none of its own.
func OperationOf(o *v1alpha1.Operation) *Operation {
	if o == nil {
		return nil
	}
	for _, describe := range operations {
		if op := describe(o); op != nil {
			return op
		}
	}
	return &Operation{}
}

// Alone tells whether one pod at a time may work, though no volume says so.
func Alone(c *v1alpha1.Connector) bool {
	s := c.Spec.Source
	return s != nil && (s.Generator != nil || s.HTTPPoll != nil || s.MQTT != nil || s.SFTP != nil || s.Postgres != nil && (s.Postgres.Table != nil || s.Postgres.Notify != nil))
}
