package e2e_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/test/cluster"
	"github.com/metip/metip/test/demo/site"
)

var _ = Describe("A Replay", func() {
	It("gives the court back what its database has lost, each record once, though the operator is killed in the middle", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		begun := metav1.NewTime(time.Now().Add(-time.Hour))
		f.post(ctx, records, 0).wait(ctx, 2*time.Minute)
		all := len(f.settles(ctx, 2*time.Minute)[0].Sent)
		had, letters := f.rows(ctx), f.letters(ctx)
		Expect(len(had)).To(BeNumerically(">", 300))
		Expect(letters).To(BeNumerically(">", 0), "some of the records are refused by the court, again each time")

		// As from a backup: with the rows goes the record of the ids that they came under.
		Expect(f.Database.Reset(ctx)).To(Succeed())
		Expect(f.Database.Exec(ctx, "TRUNCATE court.metip_received")).To(Succeed())
		lost := f.replay(site.ToDatabase, busv1alpha1.ReplaySource{Time: &busv1alpha1.ReplayTime{From: begun}})
		lost.Spec.Rate = 60
		Expect(on.Client.Create(ctx, lost)).To(Succeed())
		for _, n := range []int64{150, 450} {
			Eventually(ctx, sent(ctx, lost)).WithTimeout(90 * time.Second).Should(BeNumerically(">=", n))
			pods := podNames(ctx, cluster.OperatorNamespace, operatorSelector)
			Expect(pods).To(HaveLen(1))
			Expect(on.Kill(ctx, cluster.OperatorNamespace, runningPod(ctx, cluster.OperatorNamespace, pods[0]))).To(Succeed())
		}
		Expect(sent(ctx, lost)()).To(BeNumerically("<", all), "the second kill is in the middle too")
		eventuallySays(ctx, 3*time.Minute, lost, "Complete=True Completed")
		Expect(lost.Status.Counts.Sent).To(BeEquivalentTo(all))
		Expect(lost.Status.Counts.Matched).To(Equal(lost.Status.Counts.Sent))
		Expect(f.rows(ctx)).To(Equal(had), "every record that the court had, written once each")
		Expect(f.letters(ctx)).To(Equal(2*letters), "what is refused has a dead letter for each time")

		By("redriving the dead letters, which are refused once more")
		redriven := f.replay(site.ToDatabase, busv1alpha1.ReplaySource{DeadLetters: &busv1alpha1.ReplayDeadLetters{}})
		Expect(on.Client.Create(ctx, redriven)).To(Succeed())
		eventuallySays(ctx, time.Minute, redriven, "Complete=True Completed")
		Expect(redriven.Status.Counts.Sent).To(BeEquivalentTo(2 * letters))
		Expect(f.letters(ctx)).To(Equal(2*letters), "the former ones are gone, and as many are new")
		Expect(f.rows(ctx)).To(Equal(had))

		By("replaying to a system that recognises what it has by the message's id")
		again := f.replay(site.ToCaseAPI, busv1alpha1.ReplaySource{Sequences: &busv1alpha1.ReplaySequences{First: 1}})
		again.Spec.Rate = 2000
		Expect(on.Client.Create(ctx, again)).To(Succeed())
		eventuallySays(ctx, 2*time.Minute, again, "Complete=True Completed")
		cases, err := f.CaseAPI.Cases(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, c := range cases {
			Expect(c.Keys).To(HaveLen(1), "case %s came under the id that it had", c.CaseID)
		}
		f.ready(ctx)
	}, SpecTimeout(10*time.Minute))
})

func (f *testFlow) replay(destination string, from busv1alpha1.ReplaySource) *busv1alpha1.Replay {
	return &busv1alpha1.Replay{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, GenerateName: "again-"},
		Spec:       busv1alpha1.ReplaySpec{To: busv1alpha1.ReplayTarget{Route: site.Route, Destination: busv1alpha1.ObjectName(destination)}, From: from},
	}
}

func sent(ctx context.Context, o *busv1alpha1.Replay) func() (int64, error) {
	return func() (int64, error) {
		if err := on.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil || o.Status.Counts == nil {
			return -1, err
		}
		return o.Status.Counts.Sent, nil
	}
}

// rows of the court's database: how often each case was written.
func (f *testFlow) rows(ctx context.Context) map[string]int {
	GinkgoHelper()
	rows, err := f.Database.Rows(ctx)
	Expect(err).NotTo(HaveOccurred())
	out := map[string]int{}
	for _, r := range rows {
		out[r.CaseID] = r.Writes
	}
	return out
}

// letters of the court's database.
func (f *testFlow) letters(ctx context.Context) int {
	GinkgoHelper()
	all, err := f.admin.DeadLetters(ctx, f.Namespace, site.Integration, 0)
	Expect(err).NotTo(HaveOccurred())
	n := 0
	for _, l := range all {
		if l.Destination == site.ToDatabase {
			n++
		}
	}
	return n
}
