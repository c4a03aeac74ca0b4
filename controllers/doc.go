// Package controllers is the control plane: a package for each kind, and SetupAll, which adds them to a manager. What a cache may hold is in
// CacheOptions: of Kubernetes' own objects, those that the operator made.
package controllers
