// Package metrics holds the operator's own metrics, beside those of controller-runtime: objects by kind and readiness, what is suspended, what
// waits for each destination, and when credentials and certificates end. They are computed when they are asked for, from the cache and from
// what controllers found on the broker in passing.
package metrics
