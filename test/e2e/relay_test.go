package e2e_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/site"
)

const arrestEvent = "police.arrest.v1"

// newRelayedFlow is the demo's flow in two hops: the custody system's records become events, and those go to the court's systems.
func newRelayedFlow(ctx context.Context, change func(*unstructured.Unstructured)) (*testFlow, *busv1alpha1.Route) {
	GinkgoHelper()
	f := newFlow(ctx, flowOptions{change: func(o *unstructured.Unstructured) {
		if o.GetKind() == "Route" {
			set(o, []any{map[string]any{"events": map[string]any{"types": []any{arrestEvent}}}}, "spec", "from")
		}
		if change != nil {
			change(o)
		}
	}})
	publish := &busv1alpha1.Route{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "publish-arrests"},
		Spec: busv1alpha1.RouteSpec{
			IntegrationRef: busv1alpha1.LocalRef{Name: site.Integration},
			From:           []busv1alpha1.RouteFrom{{Connector: site.Custody}},
			To:             []busv1alpha1.Destination{{Name: "public", Event: &busv1alpha1.EventDestination{Type: arrestEvent}}},
		},
	}
	Expect(on.Client.Create(ctx, publish)).To(Succeed())
	eventuallyReady(ctx, publish, time.Minute)
	f.ready(ctx)
	return f, publish
}

var _ = Describe("Events on the bus", func() {
	It("arrive, each once, while the relay is killed in mid-flow", func(ctx SpecContext) {
		f, _ := newRelayedFlow(ctx, nil)
		p := f.post(ctx, records, 250)
		for i := range 4 {
			p.accepted(ctx, 100+i*200)
			pods := f.pods(ctx, site.Integration+"_relay")
			Expect(pods).To(HaveLen(1))
			Expect(on.Kill(ctx, f.Namespace, runningPod(ctx, f.Namespace, pods[0]))).To(Succeed())
		}
		p.wait(ctx, 2*time.Minute)
		f.settles(ctx, 3*time.Minute)
		f.ready(ctx)
	}, SpecTimeout(7*time.Minute))

	// The stream is full of what only the relay can take away, and the relay needs room for that.
	It("come out of a full bus, though its sources press on", func(ctx SpecContext) {
		f, publish := newRelayedFlow(ctx, func(o *unstructured.Unstructured) {
			if o.GetKind() == "Integration" {
				set(o, map[string]any{"period": "1s", "size": "8Mi"}, "spec", "retention")
				set(o, "1m", "spec", "deduplicationWindow")
			}
		})
		suspend := func(yes *bool) {
			Eventually(ctx, func() error {
				if err := on.Client.Get(ctx, client.ObjectKeyFromObject(publish), publish); err != nil {
					return err
				}
				publish.Spec.Suspend = yes
				return on.Client.Update(ctx, publish)
			}).Should(Succeed())
		}
		suspend(new(true))
		eventuallySays(ctx, 20*time.Second, publish, "Ready=False Suspended")

		large := make([]arrests.Line, 200)
		for i := range large {
			large[i] = records[i]
			large[i].Body = bytes.Replace(records[i].Body, []byte(`{`), []byte(`{"photograph":"`+strings.Repeat("x", 60<<10)+`",`), 1)
		}
		p := f.post(ctx, large, 0)
		Eventually(ctx, func() int {
			return f.request(ctx, `{"disposal": "none", "x": "`+strings.Repeat("x", 500<<10)+`"}`, nil).status
		}).WithTimeout(time.Minute).Should(Equal(http.StatusServiceUnavailable))

		suspend(nil)
		eventuallySays(ctx, time.Minute, publish, "Connected=False StreamFull")
		p.wait(ctx, 6*time.Minute)
		f.settles(ctx, 3*time.Minute)
		f.ready(ctx)
		eventuallyReady(ctx, publish, time.Minute)
	}, SpecTimeout(14*time.Minute))
})
