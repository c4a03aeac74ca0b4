package e2e_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/test/demo/flow"
	"github.com/metip/metip/test/demo/site"
)

var _ = Describe("The demo's flow", func() {
	It("accounts for every one of a thousand arrests, at both destinations", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		p := f.post(ctx, records, 0)
		p.wait(ctx, time.Minute)
		ledgers := f.settles(ctx, time.Minute)
		for _, l := range ledgers {
			latencies := l.Latencies()
			measured.add("as fast as can be, "+l.Destination+", p50", flow.Quantile(latencies, 0.5).Seconds()*1000, "ms")
			measured.add("as fast as can be, "+l.Destination+", p99", flow.Quantile(latencies, 0.99).Seconds()*1000, "ms")
		}
		stats, err := f.CaseAPI.Stats(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(stats.Connections).To(BeNumerically("<", stats.Requests/10), "connections are reused")
	}, SpecTimeout(4*time.Minute))

	It("sends what cannot be delivered to the dead letters, whole and with the reason", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		f.post(ctx, records, 0).wait(ctx, time.Minute)
		notAnArrest := f.request(ctx, `{"arrestId": "XX26-1", "disposal": "court"}`, map[string]string{"Idempotency-Key": "XX26-1"})
		Expect(notAnArrest.status).To(Equal(http.StatusAccepted), notAnArrest.body)
		byHand := 2
		Eventually(ctx, func() (int, error) {
			letters, err := f.admin.DeadLetters(ctx, f.Namespace, site.Integration, 0)
			return len(letters), err
		}).WithTimeout(time.Minute).Should(Equal(3 + 2 + byHand))
		letters, err := f.admin.DeadLetters(ctx, f.Namespace, site.Integration, 0)
		Expect(err).NotTo(HaveOccurred())
		for _, letter := range letters {
			Expect(letter.Route).To(Equal(site.Route))
			for _, name := range []string{
				contract.HeaderDeadConnector, contract.HeaderDeadError, contract.HeaderDeadAttempts, contract.HeaderDeadTime, contract.HeaderDeadStream,
				contract.HeaderDeadSequence, contract.HeaderDeadSubject, contract.HeaderType, contract.HeaderSource, contract.HeaderTime,
			} {
				Expect(letter.Headers.Get(name)).NotTo(BeEmpty(), "%s of the dead letter of %s", name, letter.ID)
			}
			Expect(letter.Headers.Get(contract.HeaderMarking)).To(Equal("OFFICIAL-SENSITIVE"))
			switch {
			case letter.ID == "XX26-1":
				Expect(letter.Reason).To(Equal(contract.DeadReasonStepFailed))
				Expect(letter.Headers.Get(contract.HeaderDeadStep)).To(ContainSubstring("reshape"))
			case letter.Destination == site.ToDatabase:
				Expect(letter.Reason).To(Equal(contract.DeadReasonRejected))
				Expect(letter.Error).To(ContainSubstring("date_of_birth"))
				Expect(letter.Headers.Get(contract.HeaderDeadConnector)).To(Equal(site.CourtDB))
			default:
				Expect(letter.Reason).To(Equal(contract.DeadReasonRejected))
				Expect(letter.Error).To(ContainSubstring("422"))
				Expect(letter.Headers.Get(contract.HeaderDeadConnector)).To(Equal(site.CaseAPI))
			}
			for i := range records {
				if records[i].ArrestID == letter.ID {
					Expect(letter.Body).To(Equal(records[i].Body), "the body of %s, byte for byte", letter.ID)
				}
			}
		}
	}, SpecTimeout(4*time.Minute))

	It("refuses bad requests at the door and loses nothing that it had accepted", func(ctx SpecContext) {
		f := newFlow(ctx, flowOptions{})
		p := f.post(ctx, records[:400], 200)
		p.accepted(ctx, 50)
		for _, bad := range []struct {
			what, body string
			headers    map[string]string
			want       int
		}{
			{"too large", `{"x": "` + strings.Repeat("x", 1<<20) + `"}`, nil, http.StatusRequestEntityTooLarge},
			{"not JSON", `{"arrestId": `, nil, http.StatusBadRequest},
			{"two values", `{} {}`, nil, http.StatusBadRequest},
			{"no credentials", `{}`, map[string]string{"Authorization": ""}, http.StatusUnauthorized},
			{"wrong credentials", `{}`, map[string]string{"Authorization": "Bearer guess"}, http.StatusUnauthorized},
			{"a foreign type", `{}`, map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "prison.release"}, http.StatusBadRequest},
		} {
			got := f.request(ctx, bad.body, bad.headers)
			Expect(got.status).To(Equal(bad.want), "%s: %s", bad.what, got.body)
		}
		p.wait(ctx, time.Minute)
		f.settles(ctx, time.Minute)
	}, SpecTimeout(4*time.Minute))
})

type answer struct {
	status int
	body   string
	header http.Header
}

// request posts a body to the custody Connector; headers replace the usual ones, an empty value removes one.
func (f *testFlow) request(ctx context.Context, body string, headers map[string]string) answer {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.poster.URL, bytes.NewReader([]byte(body)))
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+f.CustodyToken)
	for name, value := range headers {
		request.Header.Set(name, value)
		if value == "" {
			request.Header.Del(name)
		}
	}
	response, err := f.poster.HTTP.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return answer{response.StatusCode, string(text), response.Header}
}
