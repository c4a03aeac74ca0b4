// Package operator tests the whole control plane on a real API server and a real broker, with the rights of config/rbac and no others. The
// kubelet and the connector pods are played by the test: they run what the Deployments say, with the credentials that the operator wrote, and
// report what a spec tells them to.
package operator
