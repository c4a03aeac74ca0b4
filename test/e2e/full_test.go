package e2e_test

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/demo/arrests"
	"github.com/metip/metip/test/demo/site"
)

var _ = Describe("A bus that is full", func() {
	It("pushes back, says so, forgets nothing, and goes on when there is room", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{change: func(o *unstructured.Unstructured) {
			if o.GetKind() == "Integration" {
				set(o, map[string]any{"period": "1s", "size": "8Mi"}, "spec", "retention")
				set(o, "1m", "spec", "deduplicationWindow")
			}
		}})
		yes := true
		f.changeRoute(ctx, func(r *busv1alpha1.Route) { r.Spec.Suspend = &yes })
		eventuallySays(ctx, 20*time.Second, f.route(), "Ready=False Suspended")

		// twelve mebibytes for eight
		large := make([]arrests.Line, 200)
		for i := range large {
			large[i] = records[i]
			large[i].Body = bytes.Replace(records[i].Body, []byte(`{`), []byte(`{"photograph":"`+strings.Repeat("x", 60<<10)+`",`), 1)
		}
		p := f.post(ctx, large, 0)
		var refused answer
		Eventually(ctx, func() int {
			// filtered out, should it be accepted
			refused = f.request(ctx, `{"disposal": "none", "x": "`+strings.Repeat("x", 500<<10)+`"}`, nil)
			return refused.status
		}).WithTimeout(30 * time.Second).Should(Equal(http.StatusServiceUnavailable))
		Expect(refused.header.Get("Retry-After")).NotTo(BeEmpty())
		eventuallySays(ctx, showsWithin, f.connector(site.Custody), "Connected=False StreamFull")
		Expect(f.poster.Accepted.Load()).To(BeNumerically("<", len(large)))

		f.changeRoute(ctx, func(r *busv1alpha1.Route) { r.Spec.Suspend = nil })
		p.wait(ctx, 3*time.Minute)
		f.settles(ctx, time.Minute)
		f.ready(ctx)
	}, SpecTimeout(6*time.Minute))
})
