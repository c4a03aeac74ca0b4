package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Operations a second of a core's time.
const (
	targetFilter    = 500_000
	targetTransform = 45_000
)

// stepBench is a Go benchmark of connectors/steps, whose figure is what a core does in a second.
type stepBench struct {
	name, flow string
	// bare is the benchmark of the same work without MetIP.
	bare   string
	target float64
}

// stepBenches are those of the flows; BenchmarkFilter1KiB and BenchmarkTransform1KiB hold more.
var stepBenches = []stepBench{
	{"BenchmarkFilter1KiB/one", "CEL filter, one comparison, 1 KiB", "", targetFilter},
	{"BenchmarkFilter1KiB/and", "CEL filter, three conditions, 1 KiB", "", targetFilter},
	{"BenchmarkTransform1KiB/fields", "jq transform, pick and rename, 1 KiB", "BenchmarkTransform1KiB/fields-bare", targetTransform},
	{"BenchmarkTransform1KiB/reshape", "jq transform, the demo's program, 1 KiB", "BenchmarkTransform1KiB/reshape-bare", 0},
}

// benchSteps runs the Go benchmarks of the steps, one processor each.
func benchSteps(ctx context.Context, _ string, o options, figures *results) error {
	_, _ = fmt.Fprintln(os.Stderr, "steps")
	lasts := "500ms"
	if o.short {
		lasts = "100ms"
	}
	cmd := exec.CommandContext(ctx, "go", "test", "./connectors/steps", "-run", "^$", "-bench", "^Benchmark(Filter|Transform)1KiB$/^(one|and|fields|fields-bare|reshape|reshape-bare)$",
		"-cpu", "1", "-count", strconv.Itoa(o.pipeline.rounds), "-benchtime", lasts)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	found := readBenchmarks(out)
	for _, x := range stepBenches {
		rates := found[x.name]["ops/core-s"]
		if len(rates) == 0 {
			return fmt.Errorf("%s was not run\n%s", x.name, out)
		}
		if bare := found[x.bare]["ops/core-s"]; len(bare) > 0 {
			figures.add(x.flow+", gojq and encoding/json alone", "a core", median(bare), "msg/s", higher)
			r := figures.add(x.flow, "a core", median(rates), "msg/s", higher)
			if x.target > 0 {
				r.aim(x.target)
			}
		} else {
			figures.add(x.flow, "a core", median(rates), "msg/s", higher).aim(x.target)
		}
		figures.add(x.flow, "allocated", median(found[x.name]["B/op"]), "B/msg", lower)
		figures.add(x.flow, "allocations", median(found[x.name]["allocs/op"]), "a msg", lower)
	}
	return nil
}

// readBenchmarks of `go test -bench`: the values of each benchmark by their units.
func readBenchmarks(out []byte) map[string]map[string][]float64 {
	all := map[string]map[string][]float64{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		of := all[fields[0]]
		if of == nil {
			of = map[string][]float64{}
			all[fields[0]] = of
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				of[fields[i+1]] = append(of[fields[i+1]], v)
			}
		}
	}
	return all
}
