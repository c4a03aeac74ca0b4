// Package route reconciles Routes: a durable consumer for each destination, made as soon as the Route is accepted and its Integration has
// streams, even while a Connector is missing, so that manifests applied in any order lose nothing. Durable consumers of destinations and
// Routes that are gone are removed by package integration.
package route
