package e2e_test

import (
	"context"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/demo/courtdb"
	"github.com/metip/metip/test/demo/site"
)

// recoversWithin is what api-decisions promises of a mended Secret: ten seconds where the operator annotates the pods, two minutes by
// the kubelet alone.
const (
	annotatedWithin = 10 * time.Second
	kubeletWithin   = 2 * time.Minute
)

var _ = Describe("Truthful status", func() {
	It("names a Secret that is missing, and recovers when it is there", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{unready: true, change: func(o *unstructured.Unstructured) {
			if o.GetName() == site.CaseAPI && o.GetKind() == "Connector" {
				set(o, "not-there-yet", "spec", "auth", "bearer", "token", "name")
			}
		}})
		eventuallyReady(ctx, f.connector(site.Custody), time.Minute)
		eventuallySays(ctx, time.Minute, f.connector(site.CaseAPI), "Deployed=True")
		eventuallySays(ctx, showsWithin, f.connector(site.CaseAPI), "Connected=False CredentialsMissing", "not-there-yet", "token")
		eventuallySays(ctx, followsWithin, f.route(), "Ready=False")
		eventuallySays(ctx, followsWithin, f.integration(), "Ready=False")
		eventuallyEvent(ctx, f.currentConnector(ctx, site.CaseAPI), "CredentialsMissing")
		f.post(ctx, records[:100], 0).wait(ctx, time.Minute)

		Expect(f.SetSecret(ctx, "not-there-yet", corev1.SecretTypeOpaque, map[string]string{"token": f.CaseAPIToken})).To(Succeed())
		f.recovers(ctx, "missing Secret", site.CaseAPI, annotatedWithin)
		f.connectAdmin(ctx)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(5*time.Minute))

	It("says that a password is wrong, and recovers when it is right", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		right := f.Database.Password
		Expect(database.SetPassword(ctx, f.Database, "changed-by-the-dba")).To(Succeed())
		took := eventuallySays(ctx, showsWithin, f.connector(site.CourtDB), "Connected=False AuthenticationFailed", "court-db:5432", f.Database.Account)
		measured.add("password changed, until Connected=False", took.Seconds(), "s")
		Expect(says(ctx, f.connector(site.CourtDB), "Connected")()).NotTo(Or(ContainSubstring(right), ContainSubstring("changed-by-the-dba")), "no secret in a status")
		eventuallySays(ctx, followsWithin, f.route(), "Ready=False", site.CourtDB)
		f.post(ctx, records[:100], 0).wait(ctx, time.Minute)
		Expect(f.SetPassword(ctx, "changed-by-the-dba")).To(Succeed())
		f.recovers(ctx, "wrong password", site.CourtDB, annotatedWithin)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(5*time.Minute))

	It("says that a certificate does not match, and recovers when it does", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		By("another name than the certificate's")
		f.changeConnector(ctx, site.CourtDB, func(c *busv1alpha1.Connector) { c.Spec.TLS.ServerName = "another-court.example" })
		eventuallySays(ctx, 30*time.Second, f.connector(site.CourtDB), "Connected=False CertificateInvalid", "court-db:5432", "another-court.example")
		f.changeConnector(ctx, site.CourtDB, func(c *busv1alpha1.Connector) { c.Spec.TLS.ServerName = "" })
		f.ready(ctx)

		By("another authority than the certificate's")
		other, err := courtdb.NewAuthority("Somebody Else")
		Expect(err).NotTo(HaveOccurred())
		Expect(f.SetDatabaseCA(ctx, other.Certificate)).To(Succeed())
		Expect(f.deletePods(ctx, site.CourtDB)).To(Succeed()) // so that the new bundle is mounted at once
		eventuallySays(ctx, 30*time.Second, f.connector(site.CourtDB), "Connected=False CertificateInvalid", "court-db:5432")
		f.post(ctx, records[:100], 0).wait(ctx, time.Minute)
		Expect(f.SetDatabaseCA(ctx, database.CA)).To(Succeed())
		f.recovers(ctx, "another authority", site.CourtDB, kubeletWithin)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(7*time.Minute))

	It("follows a token that is replaced without a gap", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		Expect(f.SetSecret(ctx, site.CustodySecret, corev1.SecretTypeOpaque, map[string]string{"token": "second\n" + f.CustodyToken})).To(Succeed())
		p := f.post(ctx, records[:500], 20)
		Eventually(ctx, func() int {
			return f.request(ctx, `{"disposal": "none"}`, map[string]string{"Authorization": "Bearer second"}).status
		}).WithTimeout(kubeletWithin).Should(Equal(http.StatusAccepted))
		p.wait(ctx, time.Minute)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("Suspending", func() {
	It("a Route holds what it owes, and delivers it afterwards", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		yes := true
		f.changeRoute(ctx, func(r *busv1alpha1.Route) { r.Spec.Suspend = &yes })
		eventuallySays(ctx, 20*time.Second, f.route(), "Ready=False Suspended")
		f.post(ctx, records[:200], 0).wait(ctx, time.Minute)
		Consistently(ctx, func() (int, error) {
			rows, err := f.Database.Rows(ctx)
			return len(rows), err
		}).WithTimeout(3 * time.Second).Should(BeZero())
		f.changeRoute(ctx, func(r *busv1alpha1.Route) { r.Spec.Suspend = nil })
		f.ready(ctx)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(4*time.Minute))

	It("an Integration stops its sources and its Routes, and both go on afterwards", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		f.suspendIntegration(ctx, true)
		for _, object := range []client.Object{f.integration(), f.connector(site.Custody), f.connector(site.CourtDB), f.route()} {
			eventuallySays(ctx, 20*time.Second, object, "Ready=False Suspended")
		}
		Eventually(ctx, func() int { return f.request(ctx, `{"disposal": "none"}`, nil).status }).
			WithTimeout(20 * time.Second).Should(Equal(http.StatusServiceUnavailable))
		p := f.post(ctx, records[:200], 0) // it repeats until the source is there again
		f.suspendIntegration(ctx, false)
		p.wait(ctx, time.Minute)
		f.ready(ctx)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(4*time.Minute))
})

func (f *testFlow) suspendIntegration(ctx context.Context, suspend bool) {
	GinkgoHelper()
	integration := f.integration()
	Expect(on.Client.Get(ctx, client.ObjectKeyFromObject(integration), integration)).To(Succeed())
	before := integration.DeepCopy()
	integration.Spec.Suspend = &suspend
	Expect(on.Client.Patch(ctx, integration, client.MergeFrom(before))).To(Succeed())
}

// recovers measures the time from the mending of a Connector's secrets until it is connected again.
func (f *testFlow) recovers(ctx context.Context, what, connector string, within time.Duration) {
	GinkgoHelper()
	took := eventuallySays(ctx, within, f.connector(connector), "Connected=True")
	measured.add(what+", from mending until Connected=True", took.Seconds(), "s")
	f.ready(ctx)
}

// currentConnector is a Connector as it is now.
func (f *testFlow) currentConnector(ctx context.Context, name string) *busv1alpha1.Connector {
	GinkgoHelper()
	c := f.connector(name)
	Expect(on.Client.Get(ctx, client.ObjectKeyFromObject(c), c)).To(Succeed())
	return c
}

func (f *testFlow) deletePods(ctx context.Context, connector string) error {
	_, err := on.Run(ctx, "delete", "pods", "-n", f.Namespace, "-l", "bus.metip.dev/connector="+connector, "--grace-period=1")
	return err
}
