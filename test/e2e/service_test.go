package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/demo/caseapi"
	"github.com/metip/metip/test/demo/flow"
	"github.com/metip/metip/test/demo/site"
)

const (
	// callTimeout of the Route that the specs add, and answeredWithin the longest that a caller may be kept waiting: much later on a loaded machine.
	callTimeout    = 5 * time.Second
	answeredWithin = callTimeout + 10*time.Second
	echoRoute      = "echo"
)

// lookupFlow is the demo's lookup in a namespace of its own, with a Route to the case API's echo beside it.
type lookupFlow struct {
	*testFlow
	asker *flow.Asker
}

func newLookup(ctx context.Context) *lookupFlow {
	GinkgoHelper()
	namespace := "e2e-" + strconv.Itoa(GinkgoParallelProcess()) + "-" + strconv.FormatInt(namespaces.Add(1), 10)
	makeNamespace(ctx, namespace)
	s, err := site.New(ctx, on, namespace)
	Expect(err).NotTo(HaveOccurred())
	f := &lookupFlow{testFlow: &testFlow{Site: s, broker: sharedBroker}}
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			f.tell(ctx)
		}
	}, NodeTimeout(time.Minute))
	Expect(s.DeployCaseAPI(ctx)).To(Succeed())
	Expect(s.ApplyFiles(ctx, site.LookupFiles, f.adapt)).To(Succeed())
	Expect(on.Client.Create(ctx, &busv1alpha1.Route{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: echoRoute},
		Spec: busv1alpha1.RouteSpec{
			From:   []busv1alpha1.RouteFrom{{Connector: site.Lookup}},
			Filter: `headers.path.startsWith("/echo/")`,
			Call:   &busv1alpha1.Call{Connector: site.LookupService, Timeout: busv1alpha1.Duration(callTimeout.String())},
		},
	})).To(Succeed())
	f.asker = &flow.Asker{HTTP: s.LookupDialer().HTTPClient(time.Minute), URL: "http://" + site.Lookup + site.LookupPath, Token: s.CustodyToken}
	f.answering(ctx)
	return f
}

// answering waits until the whole of it is Ready, as a user would.
func (f *lookupFlow) answering(ctx context.Context) {
	GinkgoHelper()
	_, err := on.Run(ctx, "wait", "-n", f.Namespace, "--for=condition=Ready", "integration/"+site.Integration, "connector/"+site.Lookup,
		"connector/"+site.LookupService, "route/"+site.LookupRoute, "route/"+echoRoute, "--timeout=120s")
	Expect(err).NotTo(HaveOccurred())
}

func (f *lookupFlow) ask(ctx context.Context, method, path string, header http.Header, body string) flow.Answer {
	GinkgoHelper()
	a, err := f.asker.Ask(ctx, method, path, header, []byte(body))
	Expect(err).NotTo(HaveOccurred())
	return a
}

func (f *lookupFlow) echo(ctx context.Context, method, path string, header http.Header, body string) (flow.Answer, caseapi.Echo) {
	GinkgoHelper()
	a := f.ask(ctx, method, "/echo/"+path, header, body)
	var e caseapi.Echo
	Expect(json.Unmarshal(a.Body, &e)).To(Succeed(), "%d %s", a.Status, a.Body)
	return a, e
}

// refusesAll waits until whichever pod is asked answers 503: those that are being replaced may answer a moment longer.
func (f *lookupFlow) refusesAll(ctx context.Context, path string) {
	GinkgoHelper()
	Eventually(ctx, func() (statuses []int, err error) {
		for range 20 {
			a, err := f.asker.Ask(ctx, http.MethodGet, path, nil, nil)
			if err != nil {
				return statuses, err
			}
			statuses = append(statuses, a.Status)
		}
		return statuses, nil
	}).WithTimeout(time.Minute).Should(HaveEach(http.StatusServiceUnavailable))
}

func (f *lookupFlow) routeNamed(name string) *busv1alpha1.Route {
	return &busv1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name}}
}

// expectProblem that a hop answered with.
func (f *lookupFlow) expectProblem(a flow.Answer, hop string, statuses ...int) {
	GinkgoHelper()
	Expect(statuses).To(ContainElement(a.Status), "%s", a.Body)
	Expect(a.Header.Get("Content-Type")).To(Equal("application/problem+json"))
	Expect(a.Header.Get("Metip-Hop")).To(Equal(f.Namespace + "/" + hop))
	var p struct {
		Status int
		Hop    string
		Detail string
	}
	Expect(json.Unmarshal(a.Body, &p)).To(Succeed())
	Expect(p.Status).To(Equal(a.Status))
	Expect(p.Hop).To(Equal(f.Namespace + "/" + hop))
	Expect(p.Detail).NotTo(BeEmpty())
	Expect(a.Took).To(BeNumerically("<", answeredWithin))
}

var _ = Describe("A service on the bus", func() {
	It("answers as if it had been called directly", func(ctx SpecContext) {
		f := newLookup(ctx)
		a, e := f.echo(ctx, http.MethodPost, "a%2Fb?status=418&q=x%20y", http.Header{
			"X-Echo": {"one", "two"}, "Content-Type": {"application/json"}, "Accept": {"application/json"},
		}, `{"n": 1.50, "name": "Ó Súilleabháin"}`)
		Expect(a.Status).To(Equal(http.StatusTeapot))
		Expect(a.Header.Get("Content-Type")).To(Equal("application/json"))
		Expect(a.Header.Values("X-Echo")).To(Equal([]string{"one", "two"}))
		Expect(a.Header).NotTo(HaveKey("Metip-Hop"), "it is the system's own answer")
		Expect(e.Method).To(Equal(http.MethodPost))
		Expect(e.Path).To(Equal("/echo/a%2Fb"))
		Expect(e.Query).To(Equal("status=418&q=x%20y"))
		Expect(string(e.Body)).To(Equal(`{"n": 1.50, "name": "Ó Súilleabháin"}`), "byte for byte")
		Expect(e.Headers.Get("Accept")).To(Equal("application/json"))
		Expect(e.Headers.Get("Authorization")).To(Equal("Bearer "+f.CaseAPIToken), "the service's credentials, not the caller's")
		Expect(e.Headers).To(HaveKey("Traceparent"))
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			_, e := f.echo(ctx, method, method, nil, "")
			Expect(e.Method).To(Equal(method))
		}
		Expect(f.ask(ctx, http.MethodHead, "/echo/x?status=202", nil, "").Status).To(Equal(http.StatusAccepted))

		By("giving custody what is for custody, and the court's 404")
		a = f.ask(ctx, http.MethodGet, "/cases/C-unknown", nil, "")
		Expect(a.Status).To(Equal(http.StatusNotFound))
		Expect(string(a.Body)).To(MatchJSON(`{"detail": "404 page not found"}`))

		By("letting nobody in who shows no token, or asks for what no Route takes")
		stranger := *f.asker
		stranger.Token = "guess"
		a, err := stranger.Ask(ctx, http.MethodGet, "/cases/C-1", nil, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(a.Status).To(Equal(http.StatusUnauthorized))
		f.expectProblem(f.ask(ctx, http.MethodGet, "/stats", nil, ""), site.Lookup, http.StatusNotFound)
		f.expectProblem(f.ask(ctx, http.MethodDelete, "/cases/C-1", nil, ""), site.Lookup, http.StatusNotFound)

		var took []time.Duration
		for range 200 {
			a, _ := f.echo(ctx, http.MethodGet, "fast", nil, "")
			Expect(a.Status).To(Equal(http.StatusOK))
			took = append(took, a.Took)
		}
		slices.Sort(took)
		measured.add("request and reply over HTTP, p50", flow.Quantile(took, 0.5).Seconds()*1000, "ms")
		measured.add("request and reply over HTTP, p99", flow.Quantile(took, 0.99).Seconds()*1000, "ms")
	}, SpecTimeout(4*time.Minute))

	It("is told truthfully when its system is down or hangs, to callers and in kubectl", func(ctx SpecContext) {
		f := newLookup(ctx)
		Expect(f.CaseAPI.SetMode(ctx, caseapi.ModeHang)).To(Succeed())
		a := f.ask(ctx, http.MethodGet, "/echo/hang", nil, "")
		f.expectProblem(a, site.LookupService, http.StatusGatewayTimeout)
		a = f.ask(ctx, http.MethodGet, "/echo/hang", http.Header{"Metip-Timeout-Ms": {"300"}}, "")
		Expect(a.Status).To(Equal(http.StatusGatewayTimeout))
		Expect(a.Took).To(BeNumerically("<", callTimeout), "a caller that waits less is answered sooner")
		Expect(f.CaseAPI.SetMode(ctx, caseapi.ModeDown)).To(Succeed())
		f.expectProblem(f.ask(ctx, http.MethodGet, "/echo/down", nil, ""), site.LookupService, http.StatusBadGateway)
		Expect(f.CaseAPI.SetMode(ctx, caseapi.ModeOK)).To(Succeed())
		Eventually(ctx, func() int { return f.ask(ctx, http.MethodGet, "/echo/back", nil, "").Status }).WithTimeout(time.Minute).Should(Equal(http.StatusOK))

		By("the system going away altogether")
		Expect(f.scaleCaseAPI(ctx, 0)).To(Succeed())
		down := time.Now()
		// a call that finds the last pod as it goes may be answered by nobody
		f.expectProblem(f.ask(ctx, http.MethodGet, "/echo/gone", nil, ""), site.LookupService, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
		took := eventuallySays(ctx, showsWithin, f.connector(site.LookupService), "Connected=False ConnectionFailed", "court-case-api")
		measured.add("service's system gone, until Connected=False", took.Seconds(), "s")
		eventuallySays(ctx, followsWithin, f.routeNamed(echoRoute), "Connected=False ConnectionFailed", site.LookupService)
		eventuallySays(ctx, followsWithin, f.routeNamed(site.LookupRoute), "Ready=False", site.LookupService)
		eventuallySays(ctx, followsWithin, f.integration(), "Ready=False")
		a = f.ask(ctx, http.MethodGet, "/echo/gone", nil, "")
		f.expectProblem(a, site.LookupService, http.StatusServiceUnavailable)
		Expect(a.Header.Get("Retry-After")).NotTo(BeEmpty())
		report("down for %s", time.Since(down))
		Expect(f.scaleCaseAPI(ctx, 1)).To(Succeed())
		f.answering(ctx)
		Expect(f.ask(ctx, http.MethodGet, "/echo/back", nil, "").Status).To(Equal(http.StatusOK))
	}, SpecTimeout(6*time.Minute))

	It("answers every caller though its pod is killed under load", func(ctx SpecContext) {
		f := newLookup(ctx)
		_, err := on.Run(ctx, "scale", "-n", f.Namespace, "connector/"+site.LookupService, "--replicas=2")
		Expect(err).NotTo(HaveOccurred())
		f.serving(ctx, 2)
		load := f.load(ctx, 8)
		load.answered(ctx, 200)
		Expect(on.Kill(ctx, f.Namespace, runningPod(ctx, f.Namespace, f.pods(ctx, site.LookupService)[0]))).To(Succeed())
		load.answered(ctx, 600)
		f.serving(ctx, 2)
		load.answered(ctx, 800)
		load.stop()
		report("answers: %v, the slowest after %s", load.statuses, load.slowest)
		Expect(load.errors).To(BeEmpty(), "every request is answered")
		Expect(load.slowest).To(BeNumerically("<", answeredWithin))
		// What the pod had taken may have been done: its callers' time runs out. Everything else another pod answers.
		failed := 0
		for status, n := range load.statuses {
			if status != http.StatusOK {
				Expect(status).To(BeElementOf(http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
				failed += n
			}
		}
		Expect(failed).To(BeNumerically("<=", 3*load.callers))
		Expect(load.statuses[http.StatusOK]).To(BeNumerically(">", 500))
	}, SpecTimeout(5*time.Minute))

	It("shares the load among its pods, and loses no call when it is scaled or changed", func(ctx SpecContext) {
		f := newLookup(ctx)
		load := f.load(ctx, 4)
		load.answered(ctx, 50)
		_, err := on.Run(ctx, "scale", "-n", f.Namespace, "connector/"+site.LookupService, "--replicas=2")
		Expect(err).NotTo(HaveOccurred())
		f.serving(ctx, 2)
		from := map[string]int{}
		for range 200 {
			_, e := f.echo(ctx, http.MethodGet, "who", nil, "")
			from[e.From]++
		}
		report("calls by pod: %v", from)
		Expect(from).To(HaveLen(2), "addresses of the service's pods")
		for _, n := range from {
			Expect(n).To(BeNumerically(">", 40), "each takes its share of 200 calls")
		}
		_, err = on.Run(ctx, "patch", "-n", f.Namespace, "connector/"+site.LookupService, "--type=merge", `-p={"spec":{"service":{"http":{"headers":{"X-Client":"custody"}}}}}`)
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() string {
			_, e := f.echo(ctx, http.MethodGet, "who", nil, "")
			return e.Headers.Get("X-Client")
		}).WithTimeout(2 * time.Minute).Should(Equal("custody"))
		f.serving(ctx, 2)
		_, err = on.Run(ctx, "scale", "-n", f.Namespace, "connector/"+site.LookupService, "--replicas=1")
		Expect(err).NotTo(HaveOccurred())
		f.serving(ctx, 1)
		load.stop()
		report("answers: %v, the slowest after %s", load.statuses, load.slowest)
		Expect(load.errors).To(BeEmpty())
		Expect(slices.Collect(maps.Keys(load.statuses))).To(Equal([]int{http.StatusOK}), "while pods come and go in good order, every call is answered")
	}, SpecTimeout(6*time.Minute))

	It("can be a stub until its system is there, and is refused while it is suspended", func(ctx SpecContext) {
		f := newLookup(ctx)
		Expect(on.Client.Create(ctx, &busv1alpha1.Connector{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "cases-stub"},
			Spec: busv1alpha1.ConnectorSpec{Service: &busv1alpha1.Service{Stub: &busv1alpha1.StubService{Examples: []busv1alpha1.StubExample{
				{When: `headers.path == "/echo/teapot"`, Status: new(int32(http.StatusTeapot)), Headers: map[string]busv1alpha1.Template{"X-Stub": "{headers.method}"}, Body: "short and stout"},
				{JQ: `{asked: $message.headers.path, body: .}`},
			}}}},
		})).To(Succeed())
		switchTo := func(service string) {
			GinkgoHelper()
			_, err := on.Run(ctx, "patch", "-n", f.Namespace, "route/"+echoRoute, "--type=merge", "-p="+fmt.Sprintf(`{"spec":{"call":{"connector":%q}}}`, service))
			Expect(err).NotTo(HaveOccurred())
			_, err = on.Run(ctx, "wait", "-n", f.Namespace, "--for=condition=Ready", "connector/"+service, "route/"+echoRoute, "--timeout=120s")
			Expect(err).NotTo(HaveOccurred())
		}
		switchTo("cases-stub")
		table, err := on.Run(ctx, "get", "connectors.bus.metip.dev", "-n", f.Namespace)
		Expect(err).NotTo(HaveOccurred())
		report("%s", table)
		Expect(table).To(MatchRegexp(`cases-stub +Service +stub +True +Ready +2 examples +1`))
		Expect(table).To(MatchRegexp(`court-cases +Service +http +True +Ready +http://court-case-api +1`))

		// the listener's former pods, which call the court, may answer a moment longer
		Eventually(ctx, func() int { return f.ask(ctx, http.MethodGet, "/echo/teapot", nil, "").Status }).WithTimeout(time.Minute).Should(Equal(http.StatusTeapot))
		a := f.ask(ctx, http.MethodGet, "/echo/teapot", nil, "")
		Expect(string(a.Body)).To(Equal("short and stout"))
		Expect(a.Header.Get("X-Stub")).To(Equal("GET"))
		a = f.ask(ctx, http.MethodPost, "/echo/other", http.Header{"Content-Type": {"application/json"}}, `{"id": 7}`)
		Expect(string(a.Body)).To(MatchJSON(`{"asked": "/echo/other", "body": {"id": 7}}`))

		By("suspending the stub, and then the Route")
		_, err = on.Run(ctx, "patch", "-n", f.Namespace, "connector/cases-stub", "--type=merge", `-p={"spec":{"suspend":true}}`)
		Expect(err).NotTo(HaveOccurred())
		eventuallySays(ctx, time.Minute, f.routeNamed(echoRoute), "Ready=False Suspended", "cases-stub")
		f.refusesAll(ctx, "/echo/teapot")
		f.expectProblem(f.ask(ctx, http.MethodGet, "/echo/teapot", nil, ""), "cases-stub", http.StatusServiceUnavailable)
		switchTo(site.LookupService)
		Eventually(ctx, func() int { return f.ask(ctx, http.MethodGet, "/echo/real", nil, "").Status }).WithTimeout(time.Minute).Should(Equal(http.StatusOK))
		_, err = on.Run(ctx, "patch", "-n", f.Namespace, "route/"+echoRoute, "--type=merge", `-p={"spec":{"suspend":true}}`)
		Expect(err).NotTo(HaveOccurred())
		f.refusesAll(ctx, "/echo/real")
		f.expectProblem(f.ask(ctx, http.MethodGet, "/echo/real", nil, ""), site.Lookup, http.StatusServiceUnavailable)
	}, SpecTimeout(6*time.Minute))
})

// serving waits until exactly so many pods of the service run, and it is Ready.
func (f *lookupFlow) serving(ctx context.Context, pods int) {
	GinkgoHelper()
	Eventually(ctx, func() (int32, error) {
		c := f.connector(site.LookupService)
		_, err := on.Exists(ctx, c)
		return c.Status.Replicas, err
	}).WithTimeout(2 * time.Minute).Should(BeEquivalentTo(pods))
	eventuallySays(ctx, 2*time.Minute, f.connector(site.LookupService), "Ready=True")
	Eventually(ctx, func() []string { return f.pods(ctx, site.LookupService) }).WithTimeout(2 * time.Minute).Should(HaveLen(pods))
}

// callLoad are callers that ask one thing after the other.
type callLoad struct {
	callers int
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	statuses map[int]int
	errors   []string
	slowest  time.Duration
	total    int
}

func (f *lookupFlow) load(ctx context.Context, callers int) *callLoad {
	l := &callLoad{callers: callers, statuses: map[int]int{}}
	asking, cancel := context.WithCancel(ctx)
	l.cancel = cancel
	DeferCleanup(l.stop)
	for range callers {
		l.running.Go(func() {
			for asking.Err() == nil {
				// a request that has begun is seen to its end
				a, err := f.asker.Ask(context.WithoutCancel(ctx), http.MethodGet, "/echo/load", nil, nil)
				l.count(a, err)
			}
		})
	}
	return l
}

func (l *callLoad) count(a flow.Answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if err != nil {
		l.errors = append(l.errors, err.Error())
		return
	}
	l.statuses[a.Status]++
	l.slowest = max(l.slowest, a.Took)
}

// answered waits until so many requests were answered.
func (l *callLoad) answered(ctx context.Context, n int) {
	GinkgoHelper()
	Eventually(ctx, func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.total
	}).WithTimeout(2 * time.Minute).Should(BeNumerically(">=", n))
}

// stop and wait for what is under way.
func (l *callLoad) stop() {
	l.cancel()
	l.running.Wait()
}
