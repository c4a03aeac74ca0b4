package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// Which way a metric is better.
const (
	higher = "higher"
	lower  = "lower"
)

// Result is one figure of out/bench.json.
type Result struct {
	Flow   string  `json:"flow"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Better string  `json:"better"`
	// RatioTo names the flow whose same metric the value was divided by.
	RatioTo string   `json:"ratioTo,omitempty"`
	Ratio   *float64 `json:"ratio,omitempty"`
	// Target of the ratio where there is one, else of the value.
	Target *float64 `json:"target,omitempty"`
}

// Met says whether the figure reaches its target; true where there is none.
func (r Result) Met() bool {
	if r.Target == nil {
		return true
	}
	v := r.Value
	if r.Ratio != nil {
		v = *r.Ratio
	}
	if r.Better == higher {
		return v >= *r.Target
	}
	return v <= *r.Target
}

// results collects figures in the order in which they are reported.
type results struct{ all []Result }

// add a figure.
func (r *results) add(flow, metric string, value float64, unit, better string) *Result {
	r.all = append(r.all, Result{Flow: flow, Metric: metric, Value: value, Unit: unit, Better: better})
	return &r.all[len(r.all)-1]
}

// against divides the figure by the reference's.
func (r *Result) against(flow string, reference float64) *Result {
	if reference > 0 {
		ratio := r.Value / reference
		r.RatioTo, r.Ratio = flow, &ratio
	}
	return r
}

// aim sets the target.
func (r *Result) aim(target float64) *Result {
	r.Target = &target
	return r
}

// write the figures as JSON.
func (r *results) write(path string) error {
	raw, err := json.MarshalIndent(r.all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// print the figures as a table, a section for each flow.
func (r *results) print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	flow := ""
	for _, x := range r.all {
		if x.Flow != flow {
			flow = x.Flow
			_, _ = fmt.Fprintf(w, "\n%s\n", flow)
		}
		ratio, target := "", ""
		if x.Ratio != nil {
			ratio = fmt.Sprintf("%.2f of %s", *x.Ratio, format(x.Value / *x.Ratio))
		}
		if x.Target != nil {
			sign, verdict := "at most", "met"
			if x.Better == higher {
				sign = "at least"
			}
			if !x.Met() {
				verdict = "MISSED"
			}
			target = fmt.Sprintf("%s %g: %s", sign, *x.Target, verdict)
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", x.Metric, format(x.Value), x.Unit, ratio, target)
	}
	return w.Flush()
}

func format(v float64) string {
	if v >= 100 || v == float64(int64(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// median of the values; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile p (0 to 1) of sorted durations, by the nearest rank.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(p*float64(len(sorted))+0.5) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
