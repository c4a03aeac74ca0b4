package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// ServiceHarness is a system that is called, made for one behaviour.
type ServiceHarness struct {
	System  string
	Options json.RawMessage
	Config  contract.Config
	Secrets map[string]string
	// Endpoint that errors must name.
	Endpoint string
	// Good makes call i, with a body of about size bytes; 0 means none. Answers says whether that is its answer.
	Good    func(i, size int) *sdk.Request
	Answers func(i int, a *sdk.Answer) bool
	// Hang makes a call that is not answered before its context ends. Begun and Ended say of how many of them the system has seen the
	// beginning and the end.
	Hang         func() *sdk.Request
	Begun, Ended func() int

	// The rest is nil where the service talks to nobody. Stop the system as a crash does, and Start it again at the same address.
	Stop, Start func(t *testing.T)
	// WrongCredentials and WrongCA replace some of Secrets. Rotate makes the system accept other credentials only, and returns them.
	WrongCredentials, WrongCA map[string]string
	Rotate                    func(t *testing.T) map[string]string
	// Seen are the paths that have reached the system.
	Seen func() []string
}

// serviceRun is a service that is open on a harness.
type serviceRun struct {
	*ServiceHarness
	secrets *fakes.Secrets
	service sdk.Service
}

func (h *ServiceHarness) open(t *testing.T, secrets *fakes.Secrets) *serviceRun {
	t.Helper()
	system, ok := lookup(h.System)
	if !ok || system.Service == nil {
		t.Fatalf("the catalogue has no service %q", h.System)
	}
	config := h.Config
	config.Service = &contract.Service{System: contract.System{Type: h.System, Options: h.Options}, MaxConcurrent: 64, Timeout: contract.Duration(time.Minute)}
	service, err := system.Service(fakes.Runtime(t, &config, secrets, nil), h.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Close() })
	return &serviceRun{h, secrets, service}
}

func (h *ServiceHarness) start(t *testing.T) *serviceRun {
	t.Helper()
	secrets := &fakes.Secrets{}
	secrets.Set(h.Secrets)
	return h.open(t, secrets)
}

func (r *serviceRun) call(t *testing.T, request *sdk.Request) (*sdk.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return r.service.Call(ctx, request)
}

// wantGood asks that call i is answered.
func (r *serviceRun) wantGood(t *testing.T, i, size int) {
	t.Helper()
	a, err := r.call(t, r.Good(i, size))
	if err != nil {
		t.Fatalf("call %d: %v", i, err)
	}
	if err := a.Check(); err != nil || a.Hop != "" || !r.Answers(i, a) {
		t.Fatalf("call %d: %d %v %.200q (%v)", i, a.Status, a.Header, a.Data, err)
	}
}

// wantDown asks for an UnavailableError of a call, and of Check where that can know, soon, that names the endpoint and no secret.
func (r *serviceRun) wantDown(t *testing.T, reason string, alsoCheck bool) {
	t.Helper()
	started := time.Now()
	_, err := r.call(t, r.Good(0, 0))
	errs := []error{err}
	if alsoCheck {
		errs = append(errs, r.service.Check(t.Context()))
	}
	if took := time.Since(started); took > noticeWithin {
		t.Errorf("it took %s to notice", took)
	}
	for i, err := range errs {
		var u *sdk.UnavailableError
		if !errors.As(err, &u) || u.Reason != reason {
			t.Fatalf("answer %d: %v, want Unavailable with reason %s", i, err, reason)
		}
		if reason != contract.ReasonCredentialsMissing && !strings.Contains(err.Error(), r.Endpoint) {
			t.Errorf("the endpoint %s is not named: %v", r.Endpoint, err)
		}
		for _, file := range []string{contract.FilePassword, contract.FileToken, contract.FileHMACKey, contract.FileTLSKey} {
			if value, missing := r.secrets.Get(file); missing == nil && strings.Contains(err.Error(), string(value)) {
				t.Errorf("the error repeats the %s: %v", file, err)
			}
		}
	}
}

func (r *serviceRun) wantUp(t *testing.T) {
	t.Helper()
	fakes.Eventually(t, noticeWithin, "a call is answered again", func() bool {
		a, err := r.call(t, r.Good(0, 0))
		return err == nil && r.Answers(0, a)
	})
	if err := r.service.Check(t.Context()); err != nil {
		t.Errorf("a call was answered, and Check says: %v", err)
	}
}

// Services are the behaviours. Each gets a harness of its own.
func Services(t *testing.T, newHarness func(t *testing.T) *ServiceHarness) {
	for _, behaviour := range []struct {
		name string
		run  func(t *testing.T, h *ServiceHarness)
	}{
		{"each call gets its own answer", eachItsAnswer},
		{"a request is left as it was", requestUntouched},
		{"large bodies are carried", largeCalls},
		{"the context ends the call", callCancelled},
		{"no request leads elsewhere", nowhereElse},
		{"a system that is down is unavailable, and comes back", serviceDown},
		{"wrong credentials are named, and rotation needs no restart", serviceCredentials},
		{"a certificate that does not match is refused", serviceCertificate},
	} {
		t.Run(strings.ReplaceAll(behaviour.name, " ", "_"), func(t *testing.T) { behaviour.run(t, newHarness(t)) })
	}
}

func eachItsAnswer(t *testing.T, h *ServiceHarness) {
	r := h.start(t)
	if err := r.service.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker * 50; i < worker*50+50; i++ {
				a, err := r.call(t, r.Good(i, i%2*100))
				if err != nil || !r.Answers(i, a) {
					t.Errorf("call %d: %+v, %v", i, a, err)
				}
			}
		})
	}
	wg.Wait()
}

func requestUntouched(t *testing.T, h *ServiceHarness) {
	r := h.start(t)
	request := r.Good(1, 100)
	request.Headers = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "unit": "7"}
	request.Header = map[string][]string{"x-two": {"1", "2"}}
	state := func() string {
		return fmt.Sprint(request.Method, request.Path, request.Query, request.Header, request.Headers, request.ContentType, request.Format, string(request.Data))
	}
	before := state()
	if _, err := r.call(t, request); err != nil {
		t.Fatal(err)
	}
	if after := state(); after != before {
		t.Errorf("%s has become %s", before, after)
	}
}

func largeCalls(t *testing.T, h *ServiceHarness) {
	r := h.start(t)
	for i := range 3 {
		r.wantGood(t, i, contract.MaxMessageSize-1024)
	}
}

func callCancelled(t *testing.T, h *ServiceHarness) {
	r := h.start(t)
	r.wantGood(t, 1, 0)
	for _, limit := range []func(time.Duration) (context.Context, context.CancelFunc){
		func(after time.Duration) (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), after)
		},
		func(after time.Duration) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
			return ctx, cancel
		},
	} {
		r.endCall(t, limit)
	}
	if h.Ended != nil {
		fakes.Eventually(t, noticeWithin, "the system has seen that nobody waits", func() bool { return h.Ended() == h.Begun() })
	}
	r.wantGood(t, 2, 0)
	if err := r.service.Close(); err != nil {
		t.Error("close:", err)
	}
}

// endCall ends the context of a call that hangs. One that had not come to the system by then, for the machine is busy, is made again with more time.
func (r *serviceRun) endCall(t *testing.T, limit func(time.Duration) (context.Context, context.CancelFunc)) {
	t.Helper()
	begun := func() int { return 1 }
	if r.Begun != nil {
		before := r.Begun()
		begun = func() int { return r.Begun() - before }
	}
	for after := 200 * time.Millisecond; after < noticeWithin; after *= 2 {
		ctx, cancel := limit(after)
		_, err := r.service.Call(ctx, r.Hang())
		ended := time.Now()
		<-ctx.Done()
		if took := time.Since(ended); took > after/2 {
			t.Errorf("Call returned %s before its context had ended: %v", took, err)
		}
		cancel()
		var u *sdk.UnavailableError
		if err == nil || errors.As(err, &u) {
			t.Errorf("the end of the context says nothing about the system: %v", err)
		}
		if begun() > 0 {
			return
		}
	}
	t.Error("the system has never seen the call")
}

func nowhereElse(t *testing.T, h *ServiceHarness) {
	r := h.start(t)
	for _, path := range []string{"/../secret", "/a/%2e%2e/%2e%2e/secret", "@elsewhere.example/secret", ":80/secret", "/a\r\nX: y/secret", "/..%5csecret", "secret"} {
		request := r.Good(0, 0)
		request.Path = path
		a, err := r.call(t, request)
		var refused *sdk.CallError
		if err == nil && a.Status/100 == 2 || err != nil && (!errors.As(err, &refused) || refused.Status/100 != 4) {
			t.Errorf("%q: %+v, %v", path, a, err)
		}
	}
	if h.Seen != nil {
		for _, path := range h.Seen() {
			if strings.Contains(path, "secret") {
				t.Errorf("%s has reached the system", path)
			}
		}
	}
	r.wantGood(t, 1, 0)
}

func serviceDown(t *testing.T, h *ServiceHarness) {
	if h.Stop == nil {
		return // it talks to nobody
	}
	r := h.start(t)
	for i := range 5 {
		r.wantGood(t, i, 100)
	}
	h.Stop(t)
	// A connection that broke counts as a call that may have been done, once; after that the system is known to be down.
	if _, err := r.call(t, r.Good(0, 0)); err == nil {
		t.Error("a system that is down has answered")
	}
	r.wantDown(t, contract.ReasonConnectionFailed, true)
	h.Start(t)
	r.wantUp(t)
}

func serviceCredentials(t *testing.T, h *ServiceHarness) {
	if h.WrongCredentials == nil {
		return // it proves itself to nobody
	}
	r := h.open(t, &fakes.Secrets{})
	r.wantDown(t, contract.ReasonCredentialsMissing, true)
	r.secrets.Set(h.Secrets)
	r.wantUp(t)
	r.secrets.Set(h.WrongCredentials)
	r.wantDown(t, contract.ReasonAuthenticationFailed, false)
	r.secrets.Set(h.Secrets)
	r.wantUp(t)
	r.secrets.Set(h.Rotate(t))
	r.wantUp(t)
}

func serviceCertificate(t *testing.T, h *ServiceHarness) {
	if h.WrongCA == nil {
		return // no connection, no certificate
	}
	r := h.start(t)
	r.secrets.Set(h.WrongCA)
	r = h.open(t, r.secrets)
	r.wantDown(t, contract.ReasonCertificateInvalid, true)
	r.secrets.Set(h.Secrets)
	r.wantUp(t)
}
