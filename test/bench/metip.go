package main

import (
	"context"
)

// startMetIP starts the connectors of a pipeline as the operator would: the same configuration, users and durable consumer.
func startMetIP(ctx context.Context, s *server, name, binary, to string) (*pipeline, error) {
	return startRef(ctx, s, name, binary, to)
}
