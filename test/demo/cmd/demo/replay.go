package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metip/metip/test/demo/site"
)

const (
	replayName   = "what-the-database-lost"
	replayWithin = 2 * time.Minute
	// lossStatement is what a backup from before the demo amounts to: with the rows goes the record of the ids that they came under.
	lossStatement = "TRUNCATE court.cases, court.metip_received"
)

// replay is the database's loss, and how it was made good.
type replay struct {
	manifest, table string
	lost            int
	took            time.Duration
	problems        []string
}

// loseAndReplay empties the court's database, as a backup from before the demo would, and has the bus deliver to it once more.
func (r *run) loseAndReplay(ctx context.Context) error {
	had, err := r.writes(ctx)
	if err != nil {
		return err
	}
	if err := r.site.Database.Exec(ctx, lossStatement); err != nil {
		return err
	}
	if left, err := r.writes(ctx); err != nil || len(left) > 0 {
		return fmt.Errorf("the court's database still holds %d cases: %w", len(left), err)
	}
	r.say("the court's database has lost its %d cases; replaying", len(had))
	began := time.Now()
	p := &r.replay
	p.lost, p.manifest = len(had), fmt.Sprintf(`apiVersion: bus.metip.dev/v1alpha1
kind: Replay
metadata:
  namespace: %s
  name: %s
spec:
  to: {route: %s, destination: %s}
  from:
    sequences: {first: %d}
`, site.Namespace, replayName, site.Route, site.ToDatabase, r.storedBefore+1)
	// one of an earlier run says what that one replayed
	if _, err := r.cluster.Run(ctx, "delete", "replay", "-n", site.Namespace, replayName, "--ignore-not-found"); err != nil {
		return err
	}
	if err := r.cluster.Apply(ctx, p.manifest); err != nil {
		return err
	}
	if _, err := r.cluster.Run(ctx, "wait", "-n", site.Namespace, "replay/"+replayName, "--for=condition=Complete", "--timeout="+replayWithin.String()); err != nil {
		return err
	}
	p.took = time.Since(began)
	if p.table, err = r.cluster.Run(ctx, "get", "replays", "-n", site.Namespace, replayName); err != nil {
		return err
	}
	has, err := r.writes(ctx)
	if err != nil {
		return err
	}
	for id := range had {
		if has[id] != 1 {
			p.problems = append(p.problems, fmt.Sprintf("case %s was written %d times by the replay", id, has[id]))
		}
	}
	if len(has) != len(had) {
		p.problems = append(p.problems, fmt.Sprintf("after the replay the database has %d cases, before its loss it had %d", len(has), len(had)))
	}
	r.say("the database has %d cases again", len(has))
	return nil
}

// writes of each case in the court's database.
func (r *run) writes(ctx context.Context) (map[string]int, error) {
	rows, err := r.site.Database.Rows(ctx)
	if err != nil {
		return nil, err
	}
	times := make(map[string]int, len(rows))
	for _, row := range rows {
		times[row.CaseID] = row.Writes
	}
	return times, nil
}

// showReplay prints what was replayed.
func (r *run) showReplay() {
	p := &r.replay
	fmt.Fprintf(r.out, "\nThe court's database lost its %d cases, as if a backup from before the demo had been restored. The bus still had them:\n  %s\n  $ kubectl get replays -n %s\n  %s\nThe last case was back after %.1f s; the case API, the other destination, got nothing of it.\n",
		p.lost, strings.ReplaceAll(strings.TrimSpace(p.manifest), "\n", "\n  "), site.Namespace, strings.ReplaceAll(strings.TrimSpace(p.table), "\n", "\n  "), p.took.Seconds())
}
