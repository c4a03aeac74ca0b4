package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

// Why a message was worked on twice: the classes of docs/guarantees.md.
const (
	dueToTarget = "the target did the work and did not say so"
	dueToPod    = "the sink's pod died or was frozen before it could acknowledge"
	dueToBroker = "the broker did not hear the acknowledgement, or forgot it"
	dueToWindow = "the client repeated it after the de-duplication window"
	unexplained = "nothing explains it"
)

// settleTime is how long everything may take to settle once nothing breaks any more.
const settleTime = 3 * time.Minute

func verdict(t *testing.T, w *world, l *load) {
	acknowledged := l.acknowledged()
	var owed, rejected []*posted
	for _, p := range acknowledged {
		switch {
		case !p.Keep:
		case p.Reject:
			rejected = append(rejected, p)
		default:
			owed = append(owed, p)
		}
	}
	httpDead, sqlRows := w.await(owed, rejected)
	lost := 0
	for _, p := range owed {
		if !w.target.has(p.ID) {
			lost++
			t.Errorf("%s was acknowledged at %s and did not reach the target", p.ID, p.acknowledged.Format(time.TimeOnly))
		}
		if !p.claim && sqlRows[p.ID] != 1 {
			lost++
			t.Errorf("%s was acknowledged at %s and was written to the database %d times", p.ID, p.acknowledged.Format(time.TimeOnly), sqlRows[p.ID])
		}
	}
	for _, p := range rejected {
		if httpDead[p.ID] == 0 {
			lost++
			t.Errorf("%s was rejected and is no dead letter", p.ID)
		}
	}
	for _, what := range w.target.wrong {
		t.Errorf("the target was given what it should not: %s", what)
	}
	classes := w.duplicates(t, l)
	stored, trimmed := w.stored()
	if trimmed == 0 && time.Since(w.started) > 2*window {
		t.Error("nothing was trimmed: the test is to show that trimming takes nothing that is owed")
	}
	claims := 0
	for _, p := range owed {
		if p.claim {
			claims++
		}
	}
	report(t, w, l, summary{
		claims: claims, kept: w.countClaims(t),
		acknowledged: len(acknowledged), owed: len(owed), rejected: len(rejected), lost: lost, rows: len(sqlRows), stored: stored, trimmed: trimmed,
		dead: httpDead, duplicates: classes,
	})
}

// stored messages and marks so far, and how many of them were trimmed.
func (w *world) stored() (all, trimmed uint64) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	stream, err := w.broker.JetStream().Stream(ctx, w.flows[w.http].Stream())
	if err != nil {
		w.t.Error(err)
		return 0, 0
	}
	state := stream.CachedInfo().State
	return state.LastSeq, state.FirstSeq - 1
}

// await the moment when everything that is owed has arrived, and return the dead letters of the HTTP target and the writes of the database,
// by id.
func (w *world) await(owed, rejected []*posted) (dead, rows map[string]int) {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(time.Second) {
		// What has ended by itself is started again by the kubelet.
		w.heal()
		dead, rows = w.deadLetters(w.flows[w.http]), map[string]int{}
		for _, row := range w.database.Query(w.t, "postgres", "SELECT id FROM writes") {
			rows[row[0]]++
		}
		missing := 0
		for _, p := range owed {
			if !w.target.has(p.ID) || !p.claim && rows[p.ID] == 0 {
				missing++
			}
		}
		for _, p := range rejected {
			if dead[p.ID] == 0 {
				missing++
			}
		}
		if missing == 0 || time.Now().After(deadline) {
			return dead, rows
		}
	}
}

// deadLetters of a destination, by id.
func (w *world) deadLetters(f loopback.Flow) map[string]int {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	out := map[string]int{}
	// What cannot be read now is read the next time.
	_ = w.headers(ctx, contract.DeadStream(loopback.Namespace, f.Integration), func(m jetstream.Msg, _ time.Time) {
		out[m.Headers().Get(contract.HeaderID)]++
	}, contract.DeadSubjects(loopback.Namespace, f.Integration, f.Route, f.Destination))
	return out
}

// electionTimeout of NATS at most: so long may a consumer be without a leader that hears acknowledgements.
const electionTimeout = 9 * time.Second

// aftermath of what happens to a server.
func (w *world) aftermath() time.Duration {
	if len(w.servers) > 1 {
		return electionTimeout
	}
	return time.Second
}

// duplicates of the HTTP target, by class.
func (w *world) duplicates(t *testing.T, l *load) map[string]int {
	classes := map[string]int{}
	w.target.mu.Lock()
	defer w.target.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, effects := range w.target.effects {
		p := l.messages[id]
		for i := 1; i < len(effects); i++ {
			before, now := effects[i-1], effects[i]
			if now.key != before.key {
				t.Errorf("%s came under two keys, %s and %s", id, before.key, now.key)
			}
			class := unexplained
			switch {
			case !before.confirmed:
				class = dueToTarget
			case w.during(before.came.Add(-time.Second), now.at, w.http.name):
				class = dueToPod
			case w.during(before.came.Add(-w.aftermath()), now.at, subjectBroker):
				class = dueToBroker
			case p.attempts > 1 && p.acknowledged.Sub(p.first) > window:
				class = dueToWindow
			default:
				t.Errorf("%s was worked on at %s and at %s, and nothing explains it:%s", id, before.at.Format(clock), now.at.Format(clock), w.timeline(before.came, now.at))
			}
			classes[class]++
		}
	}
	return classes
}

// summary of a scenario.
type summary struct {
	acknowledged, owed, rejected, lost, rows int
	stored, trimmed                          uint64
	dead                                     map[string]int
	duplicates                               map[string]int
	// claims were acknowledged, and kept are those that are stored.
	claims int
	kept   claimCount
}

// report is a table of what was done and what came of it.
func report(t *testing.T, w *world, l *load, s summary) {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(cells ...any) { _, _ = fmt.Fprintln(table, strings.TrimSuffix(fmt.Sprintln(cells...), "\n")) }
	byKind, lasted := map[string]int{}, map[string]time.Duration{}
	for _, f := range w.faults {
		byKind[f.kind]++
		lasted[f.kind] += f.to.Sub(f.from)
	}
	line("faults\t\t")
	for _, name := range slices.Sorted(maps.Keys(byKind)) {
		line(fmt.Sprintf("  %s\t%d\t%.1f s", name, byKind[name], lasted[name].Seconds()))
	}
	if len(w.disks) == 0 {
		line("  disk full\tnot tested: that takes root\t")
	}
	repeats := 0
	for _, p := range l.messages {
		repeats += max(0, p.attempts-1)
	}
	line(fmt.Sprintf("messages\t%d\tposted again %d times, refused %v", len(l.messages), repeats, l.refused))
	line(fmt.Sprintf("acknowledged\t%d\tat worst after %.1f s: %s", s.acknowledged, l.worst.waited().Seconds(), w.between(l.worst.first, l.worst.acknowledged)))
	line(fmt.Sprintf("owed to the target\t%d\tworst gap %.1f s: %s", s.owed, w.target.gap.Seconds(), w.between(w.target.gapAt.Add(-w.target.gap), w.target.gapAt)))
	line(fmt.Sprintf("stored\t%d\tof which %d are trimmed", s.stored, s.trimmed))
	line(fmt.Sprintf("claim checks\t%d\tthe same bytes; %d are stored, %d named, %d perhaps to be", s.claims, s.kept.uploads, s.kept.named, s.kept.young))
	line(fmt.Sprintf("written to the database\t%d\teach once", s.rows))
	letters := 0
	for _, n := range s.dead {
		letters += n
	}
	line(fmt.Sprintf("rejected\t%d\t%d dead letters", s.rejected, letters))
	line(fmt.Sprintf("lost\t%d\t", s.lost))
	duplicates := 0
	for _, n := range s.duplicates {
		duplicates += n
	}
	line(fmt.Sprintf("duplicates\t%d\t", duplicates))
	for _, class := range slices.Sorted(maps.Keys(s.duplicates)) {
		line(fmt.Sprintf("  %s\t%d\t", class, s.duplicates[class]))
	}
	_ = table.Flush()
	t.Log("\n" + text.String())
}
