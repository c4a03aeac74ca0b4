// Command profiled is a connector that writes a CPU profile of its whole life and a profile of its allocations when it ends, for
// `bench -profile`. It runs the same engine and catalogue as cmd/connector; figures come from the latter only.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/engine"
)

var (
	config  = flag.String("config", "", "configuration")
	creds   = flag.String("creds", "", "file of the broker user")
	secrets = flag.String("system-dir", "", "folder of the mounted Secrets")
	listen  = flag.String("listen", "", "address of the listener")
	health  = flag.String("health-addr", "", "address of health and metrics")
	allow   = flag.Bool("allow-loopback", false, "let the system be reached at loopback addresses")
	profile = flag.String("profile", "", "prefix of the files <prefix>.cpu and <prefix>.allocs")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("profiled", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	engine.LimitMemory()
	c, err := engine.LoadConfig(*config)
	if err != nil {
		return err
	}
	name := ""
	switch {
	case c.Source != nil:
		name = c.Source.System.Type
	case c.Service != nil:
		name = c.Service.System.Type
	default:
		name = c.Sink.System.Type
	}
	system, ok := catalog.Lookup(name)
	if !ok {
		return fmt.Errorf("there is no system %q", name)
	}
	e, err := engine.New(engine.Options{
		Config: c, System: system, Pod: c.Connector.Name + "-0", CredsFile: *creds, SystemDir: *secrets,
		ListenAddress: *listen, HealthAddress: *health, AllowLoopback: *allow, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	runtime.MemProfileRate = 64 << 10
	cpu, err := os.Create(*profile + ".cpu")
	if err != nil {
		return err
	}
	defer func() { _ = cpu.Close() }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	err = e.Run(ctx)
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	allocs, err := os.Create(*profile + ".allocs")
	if err != nil {
		return err
	}
	defer func() { _ = allocs.Close() }()
	return pprof.Lookup("allocs").WriteTo(allocs, 0)
}
