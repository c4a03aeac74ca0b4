// Package metrics holds the operator's own metrics, beside those of controller-runtime: objects by kind and readiness, what is suspended, and
// when credentials and certificates end. They are computed from the cache when they are asked for, so that nothing has to be kept up to date.
package metrics
