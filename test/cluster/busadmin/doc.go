// Package busadmin looks into a managed Broker as the cluster's administrator may: with the keys that the operator keeps in a Secret
// of its namespace, which only an administrator can read. Tests and the demo use it to see dead letters, streams and consumers without
// asking the operator; nothing of the product uses it.
package busadmin
