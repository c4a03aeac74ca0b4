package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/cluster/busadmin"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/flow"
	"github.com/metip/metip/test/demo/site"
)

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

func report(format string, args ...any) { GinkgoWriter.Printf(format+"\n", args...) }

// testFlow is a demo flow in a namespace of its own.
type testFlow struct {
	*site.Site
	broker types.NamespacedName
	admin  *busadmin.Admin
	poster *flow.Poster
	sent   []flow.Sent
}

type flowOptions struct {
	broker types.NamespacedName
	// change an object of the demo before it is applied.
	change func(*unstructured.Unstructured)
	// unready: do not wait until the flow is Ready, and do not connect to its broker.
	unready bool
}

var namespaces atomic.Int64

// newFlow sets the demo's flow up: namespace, systems, manifests. It goes when the spec ends; a failed spec tells first what it finds.
func newFlow(ctx context.Context, o flowOptions) *testFlow {
	GinkgoHelper()
	if o.broker.Name == "" {
		o.broker = sharedBroker
	}
	namespace := "e2e-" + strconv.Itoa(GinkgoParallelProcess()) + "-" + strconv.FormatInt(namespaces.Add(1), 10)
	makeNamespace(ctx, namespace)
	s, err := site.New(ctx, on, namespace)
	Expect(err).NotTo(HaveOccurred())
	f := &testFlow{Site: s, broker: o.broker}
	DeferCleanup(f.Close)
	name := "court_" + namespaceToken(namespace)
	Expect(s.UseDatabase(ctx, database, name)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(database.Drop(ctx, s.Database)).To(Succeed()) }, NodeTimeout(time.Minute))
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			f.tell(ctx)
		}
	}, NodeTimeout(time.Minute))
	Expect(s.DeployCaseAPI(ctx)).To(Succeed())
	Expect(s.ApplyFlow(ctx, func(object *unstructured.Unstructured) {
		f.adapt(object)
		if o.change != nil {
			o.change(object)
		}
	})).To(Succeed())
	f.poster = &flow.Poster{
		HTTP: s.CustodyDialer().HTTPClient(10 * time.Second), URL: "http://" + site.Custody + site.CustodyPath, Token: s.CustodyToken,
		Workers: 16, RepeatEvery: 25,
	}
	if !o.unready {
		f.ready(ctx)
		f.connectAdmin(ctx)
	}
	return f
}

// connectAdmin to the flow's broker, for looking at streams and dead letters.
func (f *testFlow) connectAdmin(ctx context.Context) {
	GinkgoHelper()
	var err error
	f.admin, err = busadmin.Connect(ctx, on, f.broker)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(f.admin.Close)
}

// adapt the demo's objects to the suite's Broker and database.
func (f *testFlow) adapt(object *unstructured.Unstructured) {
	GinkgoHelper()
	switch {
	case object.GetKind() == "Integration":
		set(object, f.broker.Name, "spec", "brokerRef", "name")
		set(object, f.broker.Namespace, "spec", "brokerRef", "namespace")
	case object.GetName() == site.CourtDB:
		set(object, f.Database.Name, "spec", "sink", "postgres", "connection", "database")
	}
}

func set(object *unstructured.Unstructured, value any, path ...string) {
	GinkgoHelper()
	Expect(unstructured.SetNestedField(object.Object, value, path...)).To(Succeed())
}

func namespaceToken(namespace string) string {
	token := []byte(namespace)
	for i, c := range token {
		if c == '-' {
			token[i] = '_'
		}
	}
	return string(token)
}

// The objects of the flow, to be read anew at each look.
func (f *testFlow) integration() *busv1alpha1.Integration {
	return &busv1alpha1.Integration{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: site.Integration}}
}

func (f *testFlow) connector(name string) *busv1alpha1.Connector {
	return &busv1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name}}
}

func (f *testFlow) route() *busv1alpha1.Route {
	return &busv1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: site.Route}}
}

// ready waits until the whole flow is Ready, as a user would, with kubectl.
func (f *testFlow) ready(ctx context.Context) {
	GinkgoHelper()
	_, err := on.Run(ctx, "wait", "-n", f.Namespace, "--for=condition=Ready", "integration/"+site.Integration, "connector/"+site.Custody,
		"connector/"+site.CourtDB, "connector/"+site.CaseAPI, "route/"+site.Route, "--timeout=120s")
	Expect(err).NotTo(HaveOccurred())
}

// posting is a poster at work in the background.
type posting struct {
	f    *testFlow
	done chan struct{}
	sent []flow.Sent
	err  error
}

// post records in the background, under keys that no other posting of this flow has unless the stamp is the same.
func (f *testFlow) post(ctx context.Context, lines []arrests.Line, perSecond float64) *posting {
	f.poster.PerSecond = perSecond
	f.poster.Accepted.Store(0)
	p := &posting{f: f, done: make(chan struct{})}
	go func() {
		defer GinkgoRecover()
		defer close(p.done)
		p.sent, p.err = f.poster.Run(ctx, lines)
	}()
	return p
}

// accepted waits until the bus has so many of the records.
func (p *posting) accepted(ctx context.Context, count int) {
	GinkgoHelper()
	Eventually(ctx, p.f.poster.Accepted.Load).WithTimeout(time.Minute).Should(BeNumerically(">=", count))
}

// wait until every record has been accepted.
func (p *posting) wait(ctx context.Context, within time.Duration) {
	GinkgoHelper()
	Eventually(ctx, p.done).WithTimeout(within).Should(BeClosed())
	Expect(p.err).NotTo(HaveOccurred())
	p.f.sent = append(p.f.sent, p.sent...)
}

// settles waits until everything that was sent is delivered, filtered or dead at both destinations, and checks every id.
func (f *testFlow) settles(ctx context.Context, within time.Duration) []*flow.Ledger {
	GinkgoHelper()
	var ledgers []*flow.Ledger
	Eventually(ctx, func() (open int, err error) {
		ledgers, open, err = f.look(ctx)
		return open, err
	}).WithTimeout(within).Should(BeZero(), "what the destinations are still owed")
	for _, l := range ledgers {
		Expect(l.Problems()).To(BeEmpty())
		Expect(len(l.Delivered)+len(l.Dead)+l.Filtered).To(Equal(len(l.Sent)), "%s: the sum", l.Destination)
	}
	return ledgers
}

func (f *testFlow) look(ctx context.Context) (ledgers []*flow.Ledger, open int, err error) {
	toDatabase := flow.NewLedger(site.ToDatabase, f.sent, func(fate arrests.Fate) bool { return fate.DatabaseRefuses })
	toCaseAPI := flow.NewLedger(site.ToCaseAPI, f.sent, func(fate arrests.Fate) bool { return fate.CaseAPIRefuses })
	rows, err := f.Database.Rows(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, row := range rows {
		toDatabase.Delivered[row.CaseID], toDatabase.Times[row.CaseID] = row.Received, row.Writes
	}
	cases, err := f.CaseAPI.Cases(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range cases {
		toCaseAPI.Delivered[c.CaseID], toCaseAPI.Times[c.CaseID] = c.Received, len(c.Keys)
	}
	letters, err := f.admin.DeadLetters(ctx, f.Namespace, site.Integration, 0)
	if err != nil {
		return nil, 0, err
	}
	ledgers = []*flow.Ledger{toDatabase, toCaseAPI}
	for _, l := range ledgers {
		for _, letter := range letters {
			if letter.Destination == l.Destination {
				l.Dead[site.CaseIDOf(letter.ID)]++
			}
		}
		owed, err := f.admin.Owed(ctx, f.Namespace, site.Integration, site.Route, l.Destination)
		if err != nil {
			return nil, 0, err
		}
		open += max(owed, l.Open())
	}
	return ledgers, open, nil
}

// pods of a Connector, by name.
func (f *testFlow) pods(ctx context.Context, connector string) []string {
	GinkgoHelper()
	return podNames(ctx, f.Namespace, "bus.metip.dev/connector="+connector)
}

func podNames(ctx context.Context, namespace, selector string) []string {
	GinkgoHelper()
	pods, err := on.Clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	return names
}

// tell why the spec failed, and what the cluster says of the flow.
func (f *testFlow) tell(ctx context.Context) { tell(ctx, f.Namespace, f.broker) }

func tell(ctx context.Context, namespace string, broker types.NamespacedName) {
	fmt.Fprintf(GinkgoWriter, "\n%s\n", CurrentSpecReport().FailureMessage())
	for _, args := range [][]string{
		{"get", "metip", "-n", namespace, "-o", "wide"},
		{"get", "brokers.bus.metip.dev", "-n", broker.Namespace, "-o", "wide"},
		{"get", "metip", "-n", namespace, "-o", "jsonpath={range .items[*]}{.kind}/{.metadata.name}{\"\\n\"}{range .status.conditions[*]}  {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}"},
		{"get", "pods", "-n", namespace, "-o", "wide"},
		{"get", "pods", "-n", broker.Namespace, "-o", "wide"},
		{"get", "events", "-n", namespace, "--sort-by=.lastTimestamp"},
		{"logs", "-n", namespace, "-l", "app.kubernetes.io/managed-by=metip", "--all-containers", "--tail=40", "--prefix"},
		{"logs", "-n", "metip-system", "deployment/metip-manager", "--tail=80"},
	} {
		text, err := on.Run(ctx, args...)
		fmt.Fprintf(GinkgoWriter, "\n$ kubectl %v\n%s\n", args, text)
		if err != nil {
			fmt.Fprintln(GinkgoWriter, err)
		}
	}
}
