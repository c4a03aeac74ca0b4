package operator_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

var _ = Describe("Claim checks", func() {
	It("have a stream while a source takes large bodies, and pass with the users that pods are given", func(ctx SpecContext) {
		got := make(chan []byte, 4)
		backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); err == nil {
				got <- body
			}
		}))
		DeferCleanup(backend.Close)
		ns := newNamespace(ctx)
		integration, source, sink := newIntegration(ns), newSource(ns, "recordings"), newSink(ns, "archive")
		sink.Spec.Sink.HTTP = &v1alpha1.HTTPSink{URL: backend.URL}
		route := newRoute(ns, "keep", "recordings", "archive")
		create(ctx, integration, source, sink, route)
		expectReady(ctx, route, integration)
		_, js := broker.Admin()
		_, err := js.Stream(ctx, contract.ClaimStream(ns, "default"))
		Expect(err).To(HaveOccurred(), "nobody needs one yet")

		change(ctx, source, func(c *v1alpha1.Connector) {
			c.Spec.Source.Format, c.Spec.Source.HTTP.MaxBodySize = v1alpha1.FormatBinary, new(resource.MustParse("16Mi"))
		})
		Eventually(func() (int64, error) {
			stream, err := js.Stream(ctx, contract.ClaimStream(ns, "default"))
			if err != nil {
				return 0, err
			}
			return stream.CachedInfo().Config.MaxBytes, nil
		}).Should(BeEquivalentTo(1 << 30))
		Eventually(func() string {
			config, _ := configOf(ctx, ns, "recordings")
			return string(config.Source.System.Options)
		}).Should(ContainSubstring("16Mi"))
		expectReady(ctx, route, integration)

		in := startPod(ctx, ns, "recordings", "real-recordings", map[string]string{contract.FileToken: "callers"})
		startPod(ctx, ns, "archive", "real-archive", nil)
		body := bytes.Repeat([]byte("recorded"), 10<<20/8)
		status, _, text := in.ask(ctx, http.MethodPost, "/arrests", string(body))
		Expect(status).To(Equal(http.StatusAccepted), text)
		var delivered []byte
		Eventually(got).Should(Receive(&delivered))
		Expect(bytes.Equal(delivered, body)).To(BeTrue())
		stream, err := js.Stream(ctx, contract.EventStream(ns, "default"))
		Expect(err).NotTo(HaveOccurred())
		m, err := stream.GetLastMsgForSubject(ctx, contract.EventFilter(ns, "default", "recordings", ""))
		Expect(err).NotTo(HaveOccurred())
		Expect(m.Header.Get(contract.HeaderClaim)).To(ContainSubstring(" 10485760 "))
		Expect(strings.TrimSpace(string(m.Data))).To(BeEmpty())
		status, _, text = in.ask(ctx, http.MethodPost, "/arrests", strings.Repeat("x", 17<<20))
		Expect(status).To(Equal(http.StatusRequestEntityTooLarge), text)

		remove(ctx, integration)
		Eventually(func() error { _, err := js.Stream(ctx, contract.ClaimStream(ns, "default")); return err }).ShouldNot(Succeed())
	})
})
