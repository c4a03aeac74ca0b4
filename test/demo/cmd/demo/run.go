package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/cluster/busadmin"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/courtdb"
	"github.com/metip/metip/test/demo/flow"
	"github.com/metip/metip/test/demo/site"
)

const (
	databaseName = "court"
	repeatEvery  = 50
	// readyWithin bounds the time until everything is Ready, settleWithin the time from the last record posted until all is accounted for.
	readyWithin  = 3 * time.Minute
	settleWithin = 2 * time.Minute
	lookEvery    = 250 * time.Millisecond
	reportEvery  = time.Second
)

var defaultBroker = types.NamespacedName{Namespace: cluster.OperatorNamespace, Name: "default"}

// run is one run of the demo.
type run struct {
	out       io.Writer
	perSecond float64
	workers   int
	install   bool

	began   time.Time
	cluster *cluster.Cluster
	site    *site.Site
	admin   *busadmin.Admin
	lines   []arrests.Line
	stamp   string
	poster  *flow.Poster
	sent    []flow.Sent
	ledgers []*flow.Ledger
	lookups lookups
	replay  replay
	// deadBefore is the last dead letter of earlier runs, storedBefore their last message.
	deadBefore, storedBefore uint64
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%6.1f s  "+format+"\n", append([]any{time.Since(r.began).Seconds()}, args...)...)
}

func (r *run) everything(ctx context.Context, options cluster.Options) error {
	r.began = time.Now()
	r.stamp = "." + strconv.FormatInt(r.began.Unix(), 36)
	var err error
	if r.cluster, err = cluster.Open(ctx, options); err != nil {
		return err
	}
	if r.lines, err = readRecords(r.cluster.Root); err != nil {
		return err
	}
	for _, phase := range []func(context.Context) error{r.prepare, r.applyFlow, r.post, r.settle, r.ask, r.loseAndReplay} {
		if err := phase(ctx); err != nil {
			r.explain(ctx)
			return err
		}
	}
	defer r.site.Close()
	defer r.admin.Close()
	return r.report(ctx)
}

func readRecords(root string) ([]arrests.Line, error) {
	f, err := os.Open(filepath.Join(root, "test", "demo", "data", "arrests.ndjson"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return arrests.Read(f)
}

// prepare the operator and, at the same time, the systems at both ends.
func (r *run) prepare(ctx context.Context) error {
	version, err := r.cluster.Clientset.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	r.say("Kubernetes %s at %s", version.GitVersion, r.cluster.REST.Host)
	if _, err := r.cluster.Run(ctx, "apply", "--server-side", "-f", r.file("namespace.yaml")); err != nil {
		return err
	}
	if r.site, err = site.New(ctx, r.cluster, site.Namespace); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if !r.install {
			return nil
		}
		if err := r.cluster.Install(ctx); err != nil {
			return err
		}
		r.say("the operator runs (kubectl apply -k config/default)")
		return nil
	})
	group.Go(func() error {
		if err := r.database(ctx); err != nil {
			return fmt.Errorf("the court's database: %w", err)
		}
		return r.site.Database.Reset(ctx)
	})
	group.Go(func() error {
		if err := r.site.DeployCaseAPI(ctx); err != nil {
			return err
		}
		r.say("the court's case API answers")
		return r.site.CaseAPI.Reset(ctx)
	})
	return group.Wait()
}

// database is a real PostgreSQL: beside the local cluster, or on a cluster of the user's in a pod.
func (r *run) database(ctx context.Context) error {
	if !r.cluster.Local {
		if err := r.site.RunDatabase(ctx, filepath.Join(r.cluster.Root, "out", "demo"), databaseName); err != nil {
			return err
		}
		r.say("the court's database runs in a pod")
		return nil
	}
	host, err := r.cluster.HostAddress(ctx)
	if err != nil {
		return err
	}
	server, err := courtdb.Start(ctx, courtdb.Options{Dir: databaseDir(r.cluster), Host: host, Report: r.say})
	if err != nil {
		return err
	}
	r.say("the court's PostgreSQL listens on %s:%d", server.Host, server.Port)
	return r.site.UseDatabase(ctx, server, databaseName)
}

func databaseDir(c *cluster.Cluster) string { return filepath.Join(c.Root, "out", "demo", "pg") }

func (r *run) file(name string) string {
	return filepath.Join(r.cluster.Root, site.Folder, name)
}

// applyFlow applies the manifests and waits as a user would.
func (r *run) applyFlow(ctx context.Context) error {
	if _, err := r.cluster.Run(ctx, "apply", "--server-side", "-k", filepath.Join(r.cluster.Root, site.Folder)); err != nil {
		return err
	}
	r.say("applied config/samples/demo; waiting until data can flow")
	_, err := r.cluster.Run(ctx, "wait", "--namespace", site.Namespace, "--for=condition=Ready", "integration/"+site.Integration,
		"connector/"+site.Custody, "connector/"+site.CourtDB, "connector/"+site.CaseAPI, "connector/"+site.Lookup,
		"connector/"+site.LookupService, "route/"+site.Route, "route/"+site.LookupRoute, "--timeout="+readyWithin.String())
	if err != nil {
		return err
	}
	r.say("everything is Ready")
	if r.admin, err = busadmin.Connect(ctx, r.cluster, defaultBroker); err != nil {
		return err
	}
	if r.deadBefore, err = r.last(ctx, contract.DeadStream(site.Namespace, site.Integration)); err != nil {
		return err
	}
	r.storedBefore, err = r.last(ctx, contract.EventStream(site.Namespace, site.Integration))
	return err
}

// last sequence of a stream.
func (r *run) last(ctx context.Context, name string) (uint64, error) {
	stream, err := r.admin.JetStream.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// post the records while showing what arrives.
func (r *run) post(ctx context.Context) error {
	r.poster = &flow.Poster{
		HTTP: r.site.CustodyDialer().HTTPClient(30 * time.Second), URL: "http://" + site.Custody + site.CustodyPath, Token: r.site.CustodyToken,
		Workers: r.workers, PerSecond: r.perSecond, Stamp: r.stamp, RepeatEvery: repeatEvery,
	}
	r.say("posting %d arrests to http://%s%s", len(r.lines), site.Custody, site.CustodyPath)
	done := make(chan error, 1)
	go func() {
		var err error
		r.sent, err = r.poster.Run(ctx, r.lines)
		done <- err
	}()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				r.say("all %d were answered 202: the bus has them on disk", len(r.sent))
			}
			return err
		case <-tick.C:
			if err := r.progress(ctx); err != nil {
				r.say("%v", err)
			}
		}
	}
}

func (r *run) progress(ctx context.Context) error {
	rows, err := r.site.Database.Rows(ctx)
	if err != nil {
		return err
	}
	cases, err := r.site.CaseAPI.Cases(ctx)
	if err != nil {
		return err
	}
	r.say("posted %4d, in the database %4d, in the case API %4d", r.poster.Accepted.Load(), len(rows), len(cases))
	return nil
}

// settle waits until every record is delivered, filtered or dead, at both destinations.
func (r *run) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for last := time.Now(); ; {
		open, err := r.look(ctx)
		if err == nil && open == 0 {
			r.say("everything is accounted for")
			return nil
		}
		if time.Since(last) > reportEvery {
			last = time.Now()
			r.say("%d deliveries are open", open)
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			if err != nil {
				return err
			}
			// the report says what is missing
			r.say("%d deliveries are still open after %s", open, settleWithin)
			return nil
		}
	}
}

// look at both destinations, the dead letters and the bus, and fill the ledgers.
func (r *run) look(ctx context.Context) (open int, err error) {
	database := flow.NewLedger(site.ToDatabase, r.sent, func(f arrests.Fate) bool { return f.DatabaseRefuses })
	caseAPI := flow.NewLedger(site.ToCaseAPI, r.sent, func(f arrests.Fate) bool { return f.CaseAPIRefuses })
	rows, err := r.site.Database.Rows(ctx)
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		database.Delivered[row.CaseID], database.Times[row.CaseID] = row.Received, row.Writes
	}
	cases, err := r.site.CaseAPI.Cases(ctx)
	if err != nil {
		return 0, err
	}
	for _, c := range cases {
		caseAPI.Delivered[c.CaseID], caseAPI.Times[c.CaseID] = c.Received, len(c.Keys)
	}
	r.ledgers = []*flow.Ledger{database, caseAPI}
	letters, err := r.admin.DeadLetters(ctx, site.Namespace, site.Integration, r.deadBefore+1)
	if err != nil {
		return 0, err
	}
	for _, ledger := range r.ledgers {
		for _, letter := range letters {
			if letter.Route == site.Route && letter.Destination == ledger.Destination {
				ledger.Dead[site.CaseIDOf(letter.ID)]++
			}
		}
		owed, err := r.admin.Owed(ctx, site.Namespace, site.Integration, site.Route, ledger.Destination)
		if err != nil {
			return 0, err
		}
		open += max(owed, ledger.Open())
	}
	return open, nil
}
