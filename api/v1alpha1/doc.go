// Package v1alpha1 holds the kinds of MetIP: Broker, Integration, Connector and Route, a file each, the types that
// they share, and every condition and reason that their status can report.
//
// It imports nothing of MetIP's own. What a type means to the data plane is in connectors/contract.
//
// +kubebuilder:object:generate=true
// +groupName=bus.metip.dev
package v1alpha1
