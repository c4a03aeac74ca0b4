package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// flow that can be picked.
type flow struct {
	name string
	run  func(context.Context, string, options, *results) error
}

// flows in the order in which they run.
var flows = []flow{
	{"pipeline", benchPipelines},
	{"bulk", benchBulk},
	{"drain", benchDrain},
	{"request-reply", benchExchange},
	{"steps", benchSteps},
	{"pods", benchPods},
	{"replay", benchReplay},
	{"operator", benchOperator},
}

// names of all flows.
func names() (all []string) {
	for _, f := range flows {
		all = append(all, f.name)
	}
	return all
}

type options struct {
	flows    []string
	short    bool
	out      string
	assets   string
	profile  string
	keep     bool
	sync     string
	pipeline settings
	operator operatorSettings
	bulk     bulkSettings
	// pods is how long idle pods are watched.
	pods time.Duration
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	picked := f.String("flows", strings.Join(names(), ","), "what to measure, comma separated")
	f.BoolVar(&o.short, "short", false, "one short round of each, to see that it works: the figures mean little")
	f.StringVar(&o.out, "out", "out/bench.json", "where the figures go")
	f.StringVar(&o.assets, "assets", os.Getenv("KUBEBUILDER_ASSETS"), "folder of etcd and kube-apiserver; left out, out/bin")
	f.StringVar(&o.profile, "profile", "", "folder that CPU and memory profiles of the connectors under load go to; left out, none are taken")
	f.BoolVar(&o.keep, "keep", false, "keep the temporary folder with logs, and print its name")
	f.StringVar(&o.sync, "sync", "", "sync mode of the broker, default or always; left out, both")
	f.IntVar(&o.pipeline.rounds, "rounds", 3, "rounds of each load; the median is reported")
	f.IntVar(&o.pipeline.connections, "connections", 32, "connections of the load")
	f.IntVar(&o.pipeline.rate, "rate", 500, "messages a second of the open loop")
	f.DurationVar(&o.pipeline.closed, "closed", 4*time.Second, "duration of a closed loop")
	f.DurationVar(&o.pipeline.open, "open", 6*time.Second, "duration of an open loop")
	f.DurationVar(&o.bulk.lasts, "bulk", 3*time.Second, "duration of a run of bulk publishing")
	f.IntVar(&o.bulk.backlog, "backlog", 100_000, "messages of a backlog that is drained, or replayed")
	f.IntVar(&o.operator.connectors, "objects", 200, "Connectors, and as many Routes, that the operator is given")
	f.DurationVar(&o.operator.idle, "idle", time.Minute, "how long the operator is watched while nothing changes")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.flows = strings.Split(*picked, ",")
	for _, name := range o.flows {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("there is no flow %q: choose of %s", name, strings.Join(names(), ", "))
		}
	}
	o.pipeline.warmUp, o.pods = 2*time.Second, restFor
	if o.short {
		o.pipeline.rounds, o.pipeline.closed, o.pipeline.open, o.pipeline.warmUp = 1, time.Second, 2*time.Second, time.Second
		o.bulk.lasts, o.bulk.backlog, o.pods = time.Second, min(o.bulk.backlog, 10_000), time.Second
		o.operator.connectors, o.operator.idle = min(o.operator.connectors, 20), min(o.operator.idle, 5*time.Second)
	}
	if o.assets == "" {
		o.assets = filepath.Join("out", "bin")
	}
	o.assets, err = filepath.Abs(o.assets)
	// Room for 100,000 messages a second.
	o.pipeline.capacity = 100_000 * int(max(o.pipeline.closed, o.pipeline.warmUp).Seconds()+1)
	return o, err
}

// bench runs the flows, and reports what was measured also when a later one failed.
func bench(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "metip-bench-")
	if err != nil {
		return err
	}
	if o.keep {
		_, _ = fmt.Fprintln(os.Stderr, "logs are in", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ := strings.Cut(string(raw), " ")
		_, _ = fmt.Fprintf(os.Stderr, "%d processors, load average %s before the first load: what else runs shows in the figures\n", runtime.NumCPU(), load)
	}
	began := time.Now()
	var figures results
	for _, flow := range flows {
		if !slices.Contains(o.flows, flow.name) {
			continue
		}
		if failed := flow.run(ctx, dir, o, &figures); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", flow.name, failed))
		}
	}
	if len(figures.all) == 0 {
		return err
	}
	if failed := figures.print(os.Stdout); failed != nil {
		return errors.Join(err, failed)
	}
	_, _ = fmt.Fprintf(os.Stderr, "took %s, figures are in %s\n", time.Since(began).Round(time.Second), o.out)
	return errors.Join(err, figures.write(o.out))
}
