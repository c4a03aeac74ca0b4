package selftest

import (
	"context"

	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/node"
)

func Run(ctx context.Context, l layout.Layout, n *node.Node, report func(string, ...any)) error { return nil }
