package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/courtdb"
	"github.com/metip/metip/test/demo/site"
)

// down deletes what run made. The cluster, when it is the local one, is the Makefile's to stop.
func down(ctx context.Context, options cluster.Options, out io.Writer) error {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(out, "%6.1f s  "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}
	c, err := cluster.Open(ctx, options)
	if err != nil {
		// a cluster that is gone has nothing left to delete
		say("no cluster to clean: %v", err)
	} else if err := deleteObjects(ctx, c, say); err != nil {
		return err
	}
	root := options.Root
	if c != nil {
		root = c.Root
	}
	if root == "" {
		return nil
	}
	folder := filepath.Join(root, "out", "demo")
	server, err := courtdb.Find(filepath.Join(folder, "pg"))
	if err != nil {
		return err
	}
	if server != nil {
		if err := server.Remove(ctx); err != nil {
			return err
		}
		say("the court's PostgreSQL is stopped, its data removed")
	}
	return os.RemoveAll(folder)
}

func deleteObjects(ctx context.Context, c *cluster.Cluster, say func(string, ...any)) error {
	kinds, err := c.Run(ctx, "api-resources", "--categories=metip", "--namespaced=true", "-o", "name")
	if err != nil {
		return err
	}
	if names := strings.Fields(kinds); len(names) > 0 {
		// first the flow, while its Broker is there; then the Broker
		if _, err := c.Run(ctx, "delete", strings.Join(names, ","), "--all", "-n", site.Namespace, "--ignore-not-found", "--timeout=2m"); err != nil {
			return err
		}
		say("the flow is deleted")
		if _, err := c.Run(ctx, "delete", "-f", filepath.Join(c.Root, site.Folder, "broker.yaml"), "--ignore-not-found", "--timeout=2m"); err != nil {
			return err
		}
		if err := waitNoBroker(ctx, c); err != nil {
			return err
		}
		say("the broker is deleted")
	}
	if err := c.DeleteNamespace(ctx, site.Namespace); err != nil {
		return err
	}
	say("namespace %s is gone", site.Namespace)
	if err := c.Uninstall(ctx); err != nil {
		return err
	}
	say("the operator is gone")
	return nil
}

// waitNoBroker until the garbage collector has taken the Broker's children, while the operator is still there to repair nothing.
func waitNoBroker(ctx context.Context, c *cluster.Cluster) error {
	_, err := c.Run(ctx, "wait", "--for=delete", "pods", "-n", cluster.OperatorNamespace, "-l", "bus.metip.dev/broker=default", "--timeout=2m")
	return err
}
