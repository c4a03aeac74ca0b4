// Package quantity reads numbers as Kubernetes writes them (64Mi), without its libraries.
package quantity
