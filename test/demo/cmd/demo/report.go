package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/flow"
	"github.com/metip/metip/test/demo/site"
)

// report prints the result; its error says that it does not add up.
func (r *run) report(ctx context.Context) error {
	table, err := r.cluster.Run(ctx, "get", "metip", "-A")
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "\n$ kubectl get metip -A\n%s\n", table)
	var problems []string
	w := tabwriter.NewWriter(r.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "DESTINATION\tSENT\tFILTERED\tDELIVERED\tDEAD-LETTERED\tSUM\tTWICE\tP50\tP99")
	for _, l := range r.ledgers {
		problems = append(problems, l.Problems()...)
		delivered, dead, twice := len(l.Delivered), len(l.Dead), 0
		for _, times := range l.Times {
			if times > 1 {
				twice++
			}
		}
		latencies := l.Latencies()
		filtered := len(r.sent) - delivered - dead - l.Open()
		if filtered != l.Filtered {
			problems = append(problems, fmt.Sprintf("%s: %d were filtered out, %d should have been", l.Destination, filtered, l.Filtered))
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", l.Destination, len(r.sent), filtered, delivered, dead, filtered+delivered+dead, twice,
			milliseconds(flow.Quantile(latencies, 0.5)), milliseconds(flow.Quantile(latencies, 0.99)))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "\nP50 and P99: from posting the arrest to its arrival in the target system, at %.0f arrests a second.\n", r.perSecond)
	fmt.Fprintf(r.out, "%d arrests were posted a second time under the same Idempotency-Key, and %d posts were repeated until they were answered 202.\n",
		r.poster.Repeated.Load(), r.poster.Retried.Load())
	if err := r.beforeAndAfter(ctx); err != nil {
		return err
	}
	r.showLookups()
	r.showReplay()
	problems = append(append(problems, r.lookups.problems...), r.replay.problems...)
	if len(problems) > 0 {
		fmt.Fprintf(r.out, "\nIt does not add up:\n  %s\n", strings.Join(problems, "\n  "))
		return errors.New("the records do not add up")
	}
	fmt.Fprintf(r.out, "\nEvery one of the %d arrests is accounted for, by its id, at each destination. It took %.0f s.\n", len(r.sent), time.Since(r.began).Seconds())
	r.next()
	return nil
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// beforeAndAfter shows one arrest as it was posted, and as both of the court's systems have it.
func (r *run) beforeAndAfter(ctx context.Context) error {
	line := r.example()
	if line == nil {
		return errors.New("no record was bound for court")
	}
	var posted bytes.Buffer
	if err := json.Indent(&posted, line.Body, "    ", "  "); err != nil {
		return err
	}
	row, err := r.site.Database.Record(ctx, line.CaseID())
	if err != nil {
		row = err.Error()
	}
	received := &bytes.Buffer{}
	if c, err := r.site.CaseAPI.Case(ctx, line.CaseID()); err != nil {
		received.WriteString(err.Error())
	} else if err := json.Indent(received, c.Body, "    ", "  "); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "\nOne arrest, as the custody system posted it:\n    %s\nas the court's case API received it:\n    %s\nand as the court's database holds it:\n    %s\n",
		posted.String(), received.String(), strings.ReplaceAll(row, "\n", "\n    "))
	return nil
}

// example is a short record that both destinations have, with a name beyond ASCII.
func (r *run) example() *arrests.Line {
	var best *arrests.Line
	for i := range r.lines {
		l := &r.lines[i]
		beyond := len(l.Detainee.Surname) != len([]rune(l.Detainee.Surname))
		if l.Fate() == (arrests.Fate{}) && beyond && len(l.Detainee.MiddleNames) > 0 && (best == nil || len(l.Body) < len(best.Body)) {
			best = l
		}
	}
	return best
}

func (r *run) next() {
	kubectl := "kubectl"
	if r.cluster.Local {
		kubectl = "out/bin/kubectl"
		fmt.Fprintf(r.out, "\nTo look around:\n  export KUBECONFIG=%s\n", r.cluster.Kubeconfig)
	} else {
		fmt.Fprintf(r.out, "\nTo look around:\n")
	}
	for _, line := range []string{
		kubectl + " get metip -n " + site.Namespace + "                    # what there is, and whether data flows",
		kubectl + " explain connector.spec.sink.postgres       # every field is documented",
		kubectl + " edit route -n " + site.Namespace + " " + site.Route + "   # change the filter, and run make demo again",
		kubectl + " scale -n " + site.Namespace + " deployment/" + site.CaseAPIService + " --replicas=0; " + kubectl + " get metip -n " + site.Namespace + " -w",
		"make demo                                          # again; nothing is lost and nothing doubled",
		"make demo-down                                     # remove it all",
	} {
		fmt.Fprintln(r.out, "  "+line)
	}
}

// explain what the cluster says of the flow, when the demo failed.
func (r *run) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "metip", "-A", "-o", "wide"},
		{"get", "pods", "-n", site.Namespace, "-o", "wide"},
		{"get", "events", "-n", site.Namespace, "--sort-by=.lastTimestamp"},
		{"logs", "-n", "metip-system", "deployment/metip-manager", "--tail=30"},
	} {
		text, err := r.cluster.Run(ctx, args...)
		fmt.Fprintf(r.out, "\n$ kubectl %s\n%s", strings.Join(args, " "), text)
		if err != nil {
			fmt.Fprintln(r.out, err)
		}
	}
}
