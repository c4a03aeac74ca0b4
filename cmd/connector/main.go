package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine"
	"github.com/metip/metip/connectors/telemetry"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "connector:", err)
		os.Exit(1)
	}
}

// describe the systems that a connector can join.
func describe(arguments []string) error {
	flags := flag.NewFlagSet("connector catalog", flag.ContinueOnError)
	format := flags.String("o", "table", "table, or json: the options of each system as JSON Schema")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	return catalog.Describe(os.Stdout, *format)
}

func run() error {
	if len(os.Args) > 1 && os.Args[1] == "catalog" {
		return describe(os.Args[2:])
	}
	var (
		config        = flag.String("config", contract.ConfigFile, "file of the configuration")
		creds         = flag.String("creds", contract.BrokerCredsFile, "file of the broker's credentials")
		systemDir     = flag.String("system-dir", contract.SystemDir, "folder of the system's mounted Secrets")
		listen        = flag.String("listen", ":"+strconv.Itoa(contract.PortListener), "address that a connector which listens is reached at")
		healthAddress = flag.String("health-addr", ":"+strconv.Itoa(contract.PortHealth), "address of /healthz, /readyz and /metrics")
		pod           = flag.String("pod", os.Getenv(contract.EnvPodName), "name of the pod")
		allowLoopback = flag.Bool("allow-loopback", false, "let the system be reached at loopback addresses")
		logLevel      = flag.String("log-level", "info", "debug, info, warn or error")
		grace         = flag.Duration("grace", 0, "how long the drain may take; 25s by default")
		linger        = flag.Duration("linger", 0, "how long a listener stays open after the drain has begun; 3s by default")
	)
	flag.Parse()
	var level slog.Level
	if err := level.UnmarshalText([]byte(*logLevel)); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	engine.LimitMemory()
	cfg, err := engine.LoadConfig(*config)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})).
		With("connector", cfg.Connector.Namespace+"/"+cfg.Connector.Name, "pod", *pod)
	name := ""
	switch {
	case cfg.Source != nil:
		name = cfg.Source.System.Type
	case cfg.Service != nil:
		name = cfg.Service.System.Type
	default:
		name = cfg.Sink.System.Type
	}
	system, ok := catalog.Lookup(name)
	if !ok && name != contract.RelaySystem { // which is the engine's own
		return fmt.Errorf("this program knows no system %q: the operator and the connector image are of different releases", name)
	}
	var observed telemetry.Options
	if err := telemetry.FromEnvironment(&observed); err != nil {
		return err
	}
	e, err := engine.New(engine.Options{
		Config: cfg, System: system, Pod: *pod, CredsFile: *creds, SystemDir: *systemDir, ListenAddress: *listen, HealthAddress: *healthAddress,
		AllowLoopback: *allowLoopback, Grace: *grace, Linger: *linger, Log: log, Telemetry: observed,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	begun := time.Now()
	log.Info("starting", "system", name, "config", cfg.Hash)
	err = e.Run(ctx)
	if err == nil {
		log.Info("drained", "ran", time.Since(begun).Round(time.Second).String())
	}
	return err
}
