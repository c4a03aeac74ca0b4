package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/demo/site"
)

const (
	courtsTable   = "courts"
	courtsRoute   = "courts"
	courtsService = "court-registry"
)

// newEnrichedFlow is the demo's flow, whose cases tell the case API what a service and a lookup table know of their court. What custody posts with
// a courtCode goes into the table.
func newEnrichedFlow(ctx context.Context) (*testFlow, *busv1alpha1.Route) {
	GinkgoHelper()
	f := newFlow(ctx, flowOptions{unready: true, change: func(o *unstructured.Unstructured) {
		switch o.GetKind() {
		case "Integration":
			set(o, []any{map[string]any{"name": courtsTable, "size": "4Mi"}}, "spec", "tables")
		case "Route":
			if o.GetName() != site.Route {
				return
			}
			to, _, err := unstructured.NestedSlice(o.Object, "spec", "to")
			Expect(err).NotTo(HaveOccurred())
			for _, d := range to {
				if d := d.(map[string]any); d["name"] == site.ToCaseAPI {
					d["steps"] = []any{
						map[string]any{"name": "table", "enrich": map[string]any{
							"table": map[string]any{"name": courtsTable, "key": "data.court.code"}, "into": "court.listed", "default": "null",
						}},
						map[string]any{"name": "service", "enrich": map[string]any{
							"call": map[string]any{"connector": courtsService, "path": "/courts/{data.court.code}"}, "into": "court.registry", "cache": map[string]any{"ttl": "1m"},
						}},
					}
				}
			}
			set(o, to, "spec", "to")
		}
	}})
	service := &busv1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: courtsService},
		Spec: busv1alpha1.ConnectorSpec{
			IntegrationRef: busv1alpha1.LocalRef{Name: site.Integration},
			Service: &busv1alpha1.Service{Stub: &busv1alpha1.StubService{
				Examples: []busv1alpha1.StubExample{{JQ: `{asked: $message.headers.path}`}},
			}},
		},
	}
	fill := &busv1alpha1.Route{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: courtsRoute},
		Spec: busv1alpha1.RouteSpec{
			IntegrationRef: busv1alpha1.LocalRef{Name: site.Integration},
			From:           []busv1alpha1.RouteFrom{{Connector: site.Custody}},
			Filter:         "has(data.courtCode)",
			To: []busv1alpha1.Destination{{
				Name: "known", Table: &busv1alpha1.TableDestination{Name: courtsTable, Key: "data.courtCode", Remove: "has(data.closed)"},
			}},
		},
	}
	Expect(on.Client.Create(ctx, service)).To(Succeed())
	Expect(on.Client.Create(ctx, fill)).To(Succeed())
	eventuallyReady(ctx, service, 2*time.Minute)
	eventuallyReady(ctx, fill, 2*time.Minute)
	f.ready(ctx)
	f.connectAdmin(ctx)
	return f, fill
}

// tell the bus of a court, and wait until its table knows.
func (f *testFlow) tellOfCourt(ctx context.Context, body map[string]any) {
	GinkgoHelper()
	body["disposal"] = "none"
	text, err := json.Marshal(body)
	Expect(err).NotTo(HaveOccurred())
	Expect(f.request(ctx, string(text), nil).status).To(Equal(http.StatusAccepted))
	f.courtsAreKnown(ctx)
}

func (f *testFlow) courtsAreKnown(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func() (int, error) {
		return f.admin.Owed(ctx, f.Namespace, site.Integration, courtsRoute, "known")
	}).WithTimeout(2 * time.Minute).Should(BeZero())
}

// enriched is what a case says of its court.
type enriched struct {
	Court struct {
		Code   string
		Listed *struct{ Version int }
		// Registry is the service's answer.
		Registry struct{ Asked string }
	}
}

func (f *testFlow) enrichedCases(ctx context.Context) map[string]enriched {
	GinkgoHelper()
	cases, err := f.CaseAPI.Cases(ctx)
	Expect(err).NotTo(HaveOccurred())
	out := map[string]enriched{}
	for _, listed := range cases {
		c, err := f.CaseAPI.Case(ctx, listed.CaseID)
		Expect(err).NotTo(HaveOccurred())
		var e enriched
		Expect(json.Unmarshal(c.Body, &e)).To(Succeed(), "%s", c.Body)
		out[c.CaseID] = e
	}
	return out
}

var _ = Describe("What is known elsewhere", func() {
	It("is added to each message, from a service and from a lookup table that another Route fills", func(ctx SpecContext) {
		f, fill := newEnrichedFlow(ctx)
		known := map[string]bool{}
		lines := records[:120]
		for i := range lines {
			if c := lines[i].Record.Court; c != nil && c.Code != nil {
				known[*c.Code] = true
			}
		}
		Expect(len(known)).To(BeNumerically(">", 1))
		unknown := ""
		for code := range known {
			f.tellOfCourt(ctx, map[string]any{"courtCode": code, "version": 1})
			unknown = code
		}
		f.tellOfCourt(ctx, map[string]any{"courtCode": unknown, "closed": true})
		p := f.post(ctx, lines, 0)
		p.wait(ctx, 2*time.Minute)
		f.settles(ctx, 3*time.Minute)
		cases := f.enrichedCases(ctx)
		Expect(cases).NotTo(BeEmpty())
		for id, c := range cases {
			Expect(c.Court.Registry.Asked).To(Equal("/courts/"+c.Court.Code), id)
			if c.Court.Code == unknown {
				Expect(c.Court.Listed).To(BeNil(), "%s: court %s was removed", id, unknown)
			} else {
				Expect(c.Court.Listed).NotTo(BeNil(), "%s: court %s", id, c.Court.Code)
				Expect(c.Court.Listed.Version).To(Equal(1), id)
			}
		}

		By("keeping the last of each key while the relay is killed in mid-flow")
		for version := 2; version <= 60; version++ {
			for code := range known {
				body := fmt.Sprintf(`{"disposal": "none", "courtCode": %q, "version": %d}`, code, version)
				Expect(f.request(ctx, body, nil).status).To(Equal(http.StatusAccepted))
			}
			if version%20 == 0 {
				pods := f.pods(ctx, site.Integration+"_relay")
				Expect(pods).To(HaveLen(1))
				Expect(on.Kill(ctx, f.Namespace, runningPod(ctx, f.Namespace, pods[0]))).To(Succeed())
			}
		}
		f.courtsAreKnown(ctx)
		again := records[120:240]
		p = f.post(ctx, again, 0)
		p.wait(ctx, 2*time.Minute)
		f.settles(ctx, 3*time.Minute)
		seen := 0
		for id, c := range f.enrichedCases(ctx) {
			if _, before := cases[id]; !before && known[c.Court.Code] {
				Expect(c.Court.Listed).NotTo(BeNil(), id)
				Expect(c.Court.Listed.Version).To(Equal(60), id)
				seen++
			}
		}
		Expect(seen).To(BeNumerically(">", 0))

		By("saying what is wrong when the table is taken away, and losing nothing")
		integration := f.integration()
		change := func(tables []busv1alpha1.Table) {
			Eventually(ctx, func() error {
				if err := on.Client.Get(ctx, client.ObjectKeyFromObject(integration), integration); err != nil {
					return err
				}
				integration.Spec.Tables = tables
				return on.Client.Update(ctx, integration)
			}).Should(Succeed())
		}
		tables := integrationTables(ctx, f)
		change(nil)
		eventuallySays(ctx, time.Minute, fill, "ResolvedRefs=False TableNotFound", courtsTable)
		eventuallySays(ctx, time.Minute, f.route(), "ResolvedRefs=False TableNotFound", courtsTable)
		change(tables)
		eventuallyReady(ctx, fill, time.Minute)
		f.ready(ctx)
	}, SpecTimeout(12*time.Minute))
})

func integrationTables(ctx context.Context, f *testFlow) []busv1alpha1.Table {
	GinkgoHelper()
	i := f.integration()
	Expect(on.Client.Get(ctx, client.ObjectKeyFromObject(i), i)).To(Succeed())
	return i.Spec.Tables
}
