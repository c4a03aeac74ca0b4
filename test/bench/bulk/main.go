// Command bulk is what the bench measures where a system's own speed would hide the engine's: `bulk source` and `bulk sink` run the connector
// engine with a source that makes records and a sink that counts them, in the process, through the SDK; `bulk batches`, `bulk async` and
// `bulk pull` do the same with nats.go and nothing else. All answer at -control: POST /run publishes, GET /drained tells what was consumed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"
)

var (
	control = flag.String("control", "", "address of /readyz, /run and /drained")
	profile = flag.String("profile", "", "prefix of the files <prefix>.cpu and <prefix>.allocs; empty means none")
	config  = flag.String("config", "", "engine: configuration")
	creds   = flag.String("creds", "", "file of the broker user")
	secrets = flag.String("system-dir", "", "engine: folder of the mounted Secrets")
	health  = flag.String("health-addr", "", "engine: address of health and metrics")
	batch   = flag.Int("batch", 100, "engine: the most messages that the counting sink takes at a time")
	url     = flag.String("nats", "", "raw: URLs of the broker")
	ca      = flag.String("ca", "", "raw: file with the broker's CA")
	inbox   = flag.String("inbox", "", "raw: inbox prefix")
	subject = flag.String("subject", "", "raw: the subject to publish")
	stream  = flag.String("stream", "", "raw: the stream to drain")
	durable = flag.String("durable", "", "raw: its durable consumer")
)

// job is what POST /run asks for: so many messages, or for so long; the first to be reached ends it.
type job struct {
	first, messages int
	lasts           time.Duration
}

// Done is what was done: how many messages were confirmed, and in what time.
type Done struct {
	Messages    int64 `json:"messages"`
	Nanoseconds int64 `json:"nanoseconds"`
}

// role of the process: what it publishes on request, or what it has consumed. Either may be nil.
type role struct {
	publish func(context.Context, job) (int64, error)
	drained func() Done
	// run until the context ends; nil where there is nothing to run.
	run func(context.Context) error
}

func main() {
	name := os.Args[1]
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := profiled(ctx, name); err != nil {
		slog.Error("bulk "+name, "error", err)
		os.Exit(1)
	}
}

// profiled runs a role, and takes profiles of its whole life if that is wanted.
func profiled(ctx context.Context, name string) error {
	if *profile == "" {
		return run(ctx, name)
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
	err = run(ctx, name)
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

func run(ctx context.Context, name string) error {
	makers := map[string]func(context.Context) (role, error){
		"source": newSource, "sink": newSink, "batches": newBatches, "async": newAsync, "pull": newPull,
	}
	maker := makers[name]
	if maker == nil {
		return fmt.Errorf("there is no role %q", name)
	}
	r, err := maker(ctx)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: *control, Handler: r.handler(), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 2)
	go func() { ended <- server.ListenAndServe() }()
	if r.run != nil {
		// It ends by itself once the context has, when what it holds is settled.
		if err := r.run(ctx); err != nil || ctx.Err() == nil {
			return err
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

func (r role) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /run", func(w http.ResponseWriter, q *http.Request) {
		if r.publish == nil {
			http.NotFound(w, q)
			return
		}
		j, err := jobOf(q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		begun := time.Now()
		n, err := r.publish(q.Context(), j)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, Done{Messages: n, Nanoseconds: int64(time.Since(begun))})
	})
	mux.HandleFunc("GET /drained", func(w http.ResponseWriter, q *http.Request) {
		if r.drained == nil {
			http.NotFound(w, q)
			return
		}
		answer(w, r.drained())
	})
	return mux
}

func jobOf(q *http.Request) (j job, err error) {
	v := q.URL.Query()
	if j.first, err = strconv.Atoi(v.Get("first")); err != nil {
		return j, err
	}
	if j.messages, err = strconv.Atoi(v.Get("messages")); err != nil {
		return j, err
	}
	j.lasts, err = time.ParseDuration(v.Get("lasts"))
	return j, err
}

func answer(w http.ResponseWriter, d Done) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d)
}
