package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/caseapi"
)

const usage = `usage: demo <command>

  run        install MetIP into the cluster, apply config/samples/demo, post the records and account for each of them
  down       delete what run made, and stop the database
  case-api   serve the court's case API (in a pod)
  generate   write the records to standard output

run and down work on the cluster of KUBECONFIG, or else on the local one (make cluster-up).
`

const recordCount = 1000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := command(ctx, os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return flag.ErrHelp
	}
	flags := flag.NewFlagSet("demo "+args[0], flag.ContinueOnError)
	switch args[0] {
	case "run":
		r := run{out: os.Stdout}
		flags.Float64Var(&r.perSecond, "per-second", 200, "records posted a second; 0 is as fast as can be")
		flags.BoolVar(&r.install, "install", true, "install the operator; false uses the one that is there")
		flags.IntVar(&r.workers, "workers", 16, "requests at a time")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return r.everything(ctx, cluster.OptionsFromEnvironment())
	case "down":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return down(ctx, cluster.OptionsFromEnvironment(), os.Stdout)
	case "case-api":
		listen := flags.String("listen", ":8080", "address to listen on")
		tokenFile := flags.String("token-file", "", "file that holds the bearer token")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return serveCaseAPI(ctx, *listen, *tokenFile)
	case "generate":
		return arrests.Write(os.Stdout, arrests.Generate(recordCount))
	}
	return flag.ErrHelp
}

func serveCaseAPI(ctx context.Context, address, tokenFile string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("case API listens on", listener.Addr())
	// read at each request, so that a changed Secret counts at once
	tokens := func() []string {
		content, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil
		}
		return strings.Fields(string(content))
	}
	return caseapi.NewServer(tokens).Serve(ctx, listener)
}
