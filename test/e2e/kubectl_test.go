package e2e_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/test/demo/site"
)

var _ = Describe("kubectl", func() {
	It("lists, explains, waits and scales as its users expect", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		var table string
		Eventually(ctx, func() (err error) {
			table, err = on.Run(ctx, "get", "metip", "-n", f.Namespace)
			return err
		}).WithTimeout(30*time.Second).Should(Succeed(), "kubectl looks categories up in what it knew of the API, and may have to look again")
		report("%s", table)
		for _, name := range []string{
			"connector.bus.metip.dev/" + site.Custody, "connector.bus.metip.dev/" + site.CourtDB, "integration.bus.metip.dev/" + site.Integration,
			"route.bus.metip.dev/" + site.Route,
		} {
			Expect(table).To(MatchRegexp(`(?m)^`+name+`\s.*\bTrue\s+Ready\b`), "one line with Ready for %s", name)
		}
		Expect(table).To(MatchRegexp(`(?m)^connector\S+/custody\s+Source\s+http\b`))
		Expect(table).To(MatchRegexp(`(?m)^route\S+/arrests-to-court\s.*custody\s+court-db,\s?case-api`))

		for _, words := range []struct {
			path string
			want []string
		}{
			{"connector.spec", []string{"FIELDS:", "source", "sink", "auth", "proves itself", "replicas"}},
			{"connector.spec.sink.postgres", []string{"write", "-required-"}},
			{"connector.spec.sink.postgres.write", []string{"keyColumns", "function"}},
			{"route.spec.to", []string{"durable consumer"}},
		} {
			text, err := on.Run(ctx, "explain", words.path)
			Expect(err).NotTo(HaveOccurred())
			for _, word := range words.want {
				Expect(strings.Join(strings.Fields(text), " ")).To(ContainSubstring(word), "kubectl explain %s", words.path)
			}
		}

		_, err := on.Run(ctx, "wait", "-n", f.Namespace, "--for=condition=Ready", "integration/"+site.Integration, "--timeout=5s")
		Expect(err).NotTo(HaveOccurred())
		_, err = on.Run(ctx, "wait", "-n", f.Namespace, "--for=condition=Ready=False", "integration/"+site.Integration, "--timeout=1s")
		Expect(err).To(HaveOccurred())

		_, err = on.Run(ctx, "scale", "-n", f.Namespace, "connector/"+site.CourtDB, "--replicas=2")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() []string { return f.pods(ctx, site.CourtDB) }).WithTimeout(30 * time.Second).Should(HaveLen(2))
		_, err = on.Run(ctx, "wait", "-n", f.Namespace, "--for=jsonpath={.status.replicas}=2", "connector/"+site.CourtDB, "--timeout=60s")
		Expect(err).NotTo(HaveOccurred())
		f.post(ctx, records[:200], 0).wait(ctx, time.Minute)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(4*time.Minute))
})
