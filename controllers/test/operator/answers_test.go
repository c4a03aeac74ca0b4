package operator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/catalog"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine"
	"github.com/metip/metip/test/demo/caseapi"
)

// realPod runs what the operator wrote for a connector: its configuration, its broker user, and a file for each of the Secret's keys.
type realPod struct {
	listener, health string
	stop             func()
}

func startPod(ctx SpecContext, ns, connector, pod string, files map[string]string) *realPod {
	GinkgoHelper()
	config, _ := configOf(ctx, ns, connector)
	creds, err := credentialsOf(ctx, ns, connector)
	Expect(err).NotTo(HaveOccurred())
	dir := GinkgoT().TempDir()
	for name, content := range files {
		Expect(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)).To(Succeed())
	}
	credsFile := filepath.Join(GinkgoT().TempDir(), "user.creds")
	Expect(os.WriteFile(credsFile, creds, 0o600)).To(Succeed())
	system := ""
	switch {
	case config.Service != nil:
		system = config.Service.System.Type
	case config.Sink != nil:
		system = config.Sink.System.Type
	default:
		system = config.Source.System.Type
	}
	s, ok := catalog.Lookup(system)
	Expect(ok).To(BeTrue(), system)
	p := &realPod{listener: fmt.Sprintf("127.0.0.1:%d", freePort()), health: fmt.Sprintf("127.0.0.1:%d", freePort())}
	e, err := engine.New(engine.Options{
		Config: &config, System: s, Pod: pod, CredsFile: credsFile, SystemDir: dir, ListenAddress: p.listener, HealthAddress: p.health,
		AllowLoopback: true, Linger: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	Expect(err).NotTo(HaveOccurred())
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- e.Run(running) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		Eventually(done).WithTimeout(40 * time.Second).Should(Receive(BeNil()))
	})
	DeferCleanup(p.stop)
	Eventually(func() (int, error) {
		r, err := http.Get("http://" + p.health + "/readyz")
		if err != nil {
			return 0, err
		}
		return r.StatusCode, r.Body.Close()
	}).Should(Equal(http.StatusOK), "pod %s is ready", pod)
	return p
}

// ask a source's pod; hop is the Connector that answered instead of the system.
func (p *realPod) ask(ctx context.Context, method, path, body string) (status int, hop, answer string) {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+p.listener+path, strings.NewReader(body))
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer callers")
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, response.Header.Get("Metip-Hop"), string(text)
}

var _ = Describe("Pods that run what the operator wrote", func() {
	It("answer requests, each on its own side, with the users that they were given", func(ctx SpecContext) {
		cases := caseapi.NewServer(func() []string { return []string{"courts"} })
		backend := httptest.NewServer(cases.Handler())
		DeferCleanup(backend.Close)
		ns := newNamespace(ctx)
		asker, service := newAsker(ns, "ask"), newService(ns, "cases")
		service.Spec.Service.HTTP.URL, service.Spec.Service.Timeout = backend.URL, "3s"
		echo, reshape, off := newCall(ns, "echo", "ask", "cases"), newCall(ns, "reshape", "ask", "cases"), newCall(ns, "aside", "ask", "cases")
		echo.Spec.Filter = `headers.path.startsWith("/echo/")`
		reshape.Spec.Filter = `headers.method == "GET" && headers.path.startsWith("/cases/")`
		reshape.Spec.Call.Response = &v1alpha1.CallResponse{Steps: []v1alpha1.Step{{Transform: &v1alpha1.Transform{JQ: `{status: $message.headers.status, said: .}`}}}}
		off.Spec.Filter, off.Spec.Suspend = `headers.path == "/off"`, new(true)
		create(ctx, newIntegration(ns), asker, service, echo, reshape, off)
		expectReady(ctx, echo, reshape, service)

		caller := startPod(ctx, ns, "ask", "real-ask", map[string]string{contract.FileToken: "callers"})
		status, hop, _ := caller.ask(ctx, http.MethodGet, "/cases/echo/x", "")
		Expect([]any{status, hop}).To(Equal([]any{http.StatusServiceUnavailable, ns + "/ask"}), "there is no pod of the service yet")
		first := startPod(ctx, ns, "cases", "real-cases-1", map[string]string{contract.FileToken: "courts"})
		second := startPod(ctx, ns, "cases", "real-cases-2", map[string]string{contract.FileToken: "courts"})

		status, hop, text := caller.ask(ctx, http.MethodPut, "/cases/echo/a%2Fb?status=418&x=1", `{"n": 1.50}`)
		Expect([]any{status, hop}).To(Equal([]any{http.StatusTeapot, ""}), text)
		var got caseapi.Echo
		Expect(json.Unmarshal([]byte(text), &got)).To(Succeed())
		Expect([]string{got.Method, got.Path, got.Query, string(got.Body)}).To(Equal([]string{http.MethodPut, "/echo/a%2Fb", "status=418&x=1", `{"n": 1.50}`}))
		Expect(got.Headers.Get("Authorization")).To(Equal("Bearer courts"))
		status, _, text = caller.ask(ctx, http.MethodGet, "/cases/cases/C-1", "")
		Expect(status).To(Equal(http.StatusNotFound))
		Expect(text).To(MatchJSON(`{"status": "404", "said": "404 page not found\n"}`))
		status, hop, _ = caller.ask(ctx, http.MethodDelete, "/cases/cases/C-1", "")
		Expect([]any{status, hop}).To(Equal([]any{http.StatusNotFound, ns + "/ask"}), "no Route takes it")
		status, hop, _ = caller.ask(ctx, http.MethodGet, "/cases/off", "")
		Expect([]any{status, hop}).To(Equal([]any{http.StatusServiceUnavailable, ns + "/ask"}), "the Route is suspended")

		By("sharing the calls, and losing none when a pod goes in good order")
		for i := range 60 {
			if i == 30 {
				first.stop()
			}
			status, _, text := caller.ask(ctx, http.MethodGet, "/cases/echo/x", "")
			Expect(status).To(Equal(http.StatusOK), text)
		}
		second.stop()
		status, hop, _ = caller.ask(ctx, http.MethodGet, "/cases/echo/x", "")
		Expect([]any{status, hop}).To(Equal([]any{http.StatusServiceUnavailable, ns + "/ask"}))
	})
})
