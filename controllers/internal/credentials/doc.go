// Package credentials keeps the broker users of Connectors in the one Secret of a namespace that the operator may touch: a key for each
// Connector with the user's secret, and an annotation for each with what may be known of it (public key, expiry, what it was issued for). The
// operator reads the annotations alone: its cache holds the Secret's metadata, and no secret.
//
// Every Connector has a field owner of its own, so that writing one never disturbs another.
package credentials
