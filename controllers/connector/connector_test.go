package connector

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/metadata"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
	"github.com/metip/metip/controllers/internal/systems"
)

// session that only exists: the status asks nothing of it.
type session struct{ bus.Session }

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// running is a scope of a sink whose one pod runs configuration h1 and says that all is well.
func running() *scope {
	c := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "court", Generation: 2}}
	c.Spec.Sink = &v1alpha1.Sink{HTTP: &v1alpha1.HTTPSink{URL: "http://court"}}
	s := &scope{connector: c, now: now, area: refs.Area{Session: session{}}, record: &credentials.Record{Expires: now}, attached: 1}
	s.system, _ = systems.Of(c)
	s.config = contract.Config{Hash: "h1", Sink: &contract.Sink{}}
	s.deployment = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	s.deployment.Spec.Template.Labels = map[string]string{metadata.LabelConfig: "h1"}
	s.deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1, ReadyReplicas: 1}
	s.pods = []corev1.Pod{pod("p1", "h1", time.Hour)}
	s.reports = []bus.PodReport{report("p1", "h1", contract.State{OK: true})}
	return s
}

func pod(name, hash string, ready time.Duration) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{metadata.LabelConfig: hash}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-ready))}}
	return p
}

func report(name, hash string, system contract.State) bus.PodReport {
	return bus.PodReport{Pod: name, At: now, Report: contract.Report{ConfigHash: hash, System: system, Bus: contract.State{OK: true}}}
}

func TestStatus(t *testing.T) {
	down := contract.State{Reason: contract.ReasonConnectionFailed, Message: "http://court: refused"}
	for name, c := range map[string]struct {
		change func(*scope)
		err    error
		failed string
		want   map[string]string
	}{
		"all is well": {func(*scope) {}, nil, "", map[string]string{
			"Ready": "True/Ready", "Connected": "True/Connected", "Deployed": "True/Deployed", "Suspended": "False/NotSuspended",
		}},
		"the system is down": {func(s *scope) { s.reports = []bus.PodReport{report("p1", "h1", down)} }, nil, "", map[string]string{
			"Ready": "False/ConnectionFailed", "Connected": "False/ConnectionFailed", "Deployed": "True/Deployed",
		}},
		"one pod of two has failed": {func(s *scope) {
			s.pods = append(s.pods, pod("p2", "h1", time.Hour))
			s.reports = append(s.reports, report("p2", "h1", down))
		}, nil, "", map[string]string{"Connected": "False/ConnectionFailed"}},
		"a pod that drains speaks for nobody": {func(s *scope) {
			r := report("p1", "h1", down)
			r.Report.Draining = true
			s.pods = append(s.pods, pod("p2", "h1", time.Hour))
			s.reports = []bus.PodReport{r, report("p2", "h1", contract.State{OK: true})}
		}, nil, "", map[string]string{"Connected": "True/Connected"}},
		"a report of a pod that is gone counts for nothing": {func(s *scope) {
			s.reports = append(s.reports, report("gone", "h1", down))
		}, nil, "", map[string]string{"Connected": "True/Connected"}},
		"the present configuration decides": {func(s *scope) {
			s.pods = append(s.pods, pod("old", "h0", time.Hour))
			s.reports = append(s.reports, report("old", "h0", down))
		}, nil, "", map[string]string{"Connected": "True/Connected"}},
		"before the new pods report, the former ones speak": {func(s *scope) {
			s.pods = []corev1.Pod{pod("old", "h0", time.Hour), pod("new", "h1", 0)}
			s.reports = []bus.PodReport{report("old", "h0", contract.State{OK: true})}
			s.deployment.Status.UpdatedReplicas, s.deployment.Status.Replicas = 1, 2
		}, nil, "", map[string]string{"Connected": "True/Connected", "Deployed": "False/Progressing", "Ready": "False/Progressing"}},
		"no pod has reported yet": {func(s *scope) {
			s.pods, s.reports = []corev1.Pod{pod("p1", "h1", time.Second)}, nil
		}, nil, "", map[string]string{"Connected": "Unknown/Pending"}},
		"a pod has fallen silent": {func(s *scope) { s.reports = nil }, nil, "", map[string]string{
			"Connected": "Unknown/NoReport", "Ready": "Unknown/NoReport",
		}},
		"the broker does not answer": {
			func(s *scope) {
				s.area = refs.Area{Unreachable: bus.ErrUnreachable}
				s.config, s.reports = contract.Config{}, nil
			},
			refs.Unreachable(bus.ErrUnreachable), v1alpha1.ConditionProgrammed, map[string]string{
				"Programmed": "Unknown/BrokerNotReady", "Connected": "Unknown/BrokerUnreachable", "Deployed": "True/Deployed", "Ready": "Unknown/BrokerNotReady",
			},
		},
		"the spec is refused, and what runs goes on": {
			func(s *scope) { s.config = contract.Config{} },
			outcome.Refuse(v1alpha1.ReasonInvalidExpression, "spec.x: line 1"), v1alpha1.ConditionAccepted, map[string]string{
				"Accepted": "False/InvalidExpression", "Ready": "False/InvalidExpression", "Connected": "True/Connected", "Programmed": "Unknown/Pending",
			},
		},
		"the name is taken": {
			func(*scope) {}, outcome.Stall(v1alpha1.ReasonNameTaken, "taken"), v1alpha1.ConditionDeployed,
			map[string]string{"Deployed": "False/NameTaken", "Ready": "False/NameTaken"},
		},
		"the image cannot be pulled": {func(s *scope) {
			s.pods[0].Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"},
			}}}
		}, nil, "", map[string]string{"Deployed": "False/PodsNotReady"}},
		"scaled to zero": {func(s *scope) {
			s.deployment.Spec.Replicas = new(int32(0))
			s.deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: 1}
			s.pods, s.reports = nil, nil
		}, nil, "", map[string]string{"Deployed": "False/ScaledToZero", "Ready": "False/ScaledToZero"}},
		"suspended": {func(s *scope) { s.connector.Spec.Suspend = new(true) }, nil, "", map[string]string{
			"Suspended": "True/BacklogHeld", "Ready": "False/Suspended",
		}},
		"an error of the API server changes nothing that was known": {func(s *scope) {
			setStatus(s, nil, "")
		}, errTransient, v1alpha1.ConditionResolvedRefs, map[string]string{"ResolvedRefs": "True/Resolved", "Programmed": "True/Programmed"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := running()
			c.change(s)
			setStatus(s, c.err, c.failed)
			for condition, want := range c.want {
				got := meta.FindStatusCondition(s.connector.Status.Conditions, condition)
				if got == nil || string(got.Status)+"/"+got.Reason != want {
					t.Errorf("%s is %+v, want %s", condition, got, want)
				}
			}
		})
	}
}

type transientError struct{}

func (transientError) Error() string { return "the API server is away" }

var errTransient = transientError{}

func TestSettling(t *testing.T) {
	key := types.NamespacedName{Name: "court"}
	s := newSettler()
	at := now.Add
	for _, step := range []struct {
		at     time.Duration
		wanted string
		want   time.Duration
	}{
		{0, "h0", 0},
		{time.Second, "h1", settleTime},
		{2 * time.Second, "h1", time.Second},
		{2500 * time.Millisecond, "h2", settleTime},
		{4500 * time.Millisecond, "h2", 0},
	} {
		if got := s.wait(key, step.wanted, "h0", at(step.at)); got != step.want {
			t.Errorf("at %v for %s: %v, want %v", step.at, step.wanted, got, step.want)
		}
	}
	endless := newSettler()
	var wait time.Duration
	for i := range 20 {
		wait = endless.wait(key, strings.Repeat("x", i+1), "h0", at(time.Duration(i)*time.Second))
		if i >= 10 && wait != 0 {
			t.Fatalf("changes without end hold the roll back: %v after %d s", wait, i)
		}
	}
}

func TestRefreshIsRare(t *testing.T) {
	r, key := newRefresher(), types.NamespacedName{Name: "c"}
	if wait := r.due(key, "pod", now); wait != 0 {
		t.Fatalf("the first time: %v", wait)
	}
	if wait := r.due(key, "pod", now.Add(4*time.Second)); wait != 6*time.Second {
		t.Fatalf("too soon: %v", wait)
	}
	if wait := r.due(key, "pod", now.Add(10*time.Second)); wait != 0 {
		t.Fatalf("after ten seconds: %v", wait)
	}
	if wait := r.due(key, "pod", now.Add(time.Hour)); wait != 0 {
		t.Fatalf("an hour later: %v", wait)
	}
	if wait := r.due(key, "pod", now.Add(time.Hour+11*time.Second)); wait != 19*time.Second {
		t.Fatalf("then more rarely: %v", wait)
	}
	r.recovered(key, nil)
	if wait := r.due(key, "pod", now.Add(time.Hour+12*time.Second)); wait != 0 {
		t.Fatalf("a pod that fails anew: %v", wait)
	}
}

func TestNetworkPolicy(t *testing.T) {
	s := running()
	s.config.Broker.URLs = []string{"tls://a:4223", "tls://b"}
	s.system.Ports = []int32{8443}
	p := buildNetworkPolicy(s, Defaults{})
	if len(p.Spec.Ingress) != 1 {
		t.Errorf("a sink has no listener: %+v", p.Spec.Ingress)
	}
	last := p.Spec.Egress[len(p.Spec.Egress)-1]
	var ports []int
	for _, port := range last.Ports {
		ports = append(ports, port.Port.IntValue())
	}
	if len(ports) != 3 || ports[0] != 4222 || ports[1] != 4223 || ports[2] != 8443 {
		t.Errorf("ports %v", ports)
	}
	for _, peer := range last.To {
		if peer.IPBlock == nil || len(peer.IPBlock.Except) == 0 {
			t.Errorf("link-local addresses are open: %+v", peer)
		}
	}
	s.system.Listens = true
	s.connector.Spec.Sink = nil
	peers := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
	for _, source := range []*v1alpha1.Source{{HTTP: &v1alpha1.HTTPSource{AllowFrom: peers}}, {SOAP: &v1alpha1.SOAPSource{AllowFrom: peers}}} {
		s.connector.Spec.Source = source
		var err error
		if s.system, err = systems.Of(s.connector); err != nil {
			t.Fatal(err)
		}
		if p := buildNetworkPolicy(s, Defaults{}); len(p.Spec.Ingress) != 2 || len(p.Spec.Ingress[1].From) != 1 {
			t.Errorf("allowFrom of %s: %+v", s.system.Name, p.Spec.Ingress)
		}
		if options, err := s.system.OptionsJSON(); err != nil || strings.Contains(string(options), "allowFrom") {
			t.Errorf("allowFrom is no pod's business: %s, %v", options, err)
		}
	}
}

func TestCollectorPorts(t *testing.T) {
	for endpoint, want := range map[string]int32{"http://collector.observability:4318": 4318, "https://traces.example": 443, "http://traces.example/otlp": 80} {
		got := collectorPorts([]corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://proxy:3128"}, {Name: contract.EnvCollectorEndpoint, Value: endpoint}})
		if len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %d", endpoint, got, want)
		}
	}
	if got := collectorPorts(nil); len(got) != 0 {
		t.Errorf("without a collector: %v", got)
	}
}

func TestOldPodsKeepRetiredUsersAlive(t *testing.T) {
	s := running()
	if !rolledOut(s) {
		t.Error("one pod of the present configuration is all there is")
	}
	s.pods = append(s.pods, pod("old", "h0", time.Hour))
	if rolledOut(s) {
		t.Error("a pod of the former configuration still runs")
	}
}

func TestGracePeriodCoversADelivery(t *testing.T) {
	c := contract.Config{Sink: &contract.Sink{Routes: []contract.Route{{Delivery: contract.Delivery{Timeout: contract.Duration(5 * time.Minute)}}}}}
	if got := gracePeriod(c); got < 5*time.Minute {
		t.Errorf("%v", got)
	}
	if got := gracePeriod(contract.Config{}); got != minGracePeriod {
		t.Errorf("%v", got)
	}
}

// The data plane may not import the API, hence it repeats the reasons of Connected.
func TestReasonsOfReportsAreTheAPIs(t *testing.T) {
	for report, api := range map[string]string{
		contract.ReasonPending:              v1alpha1.ReasonPending,
		contract.ReasonConnectionFailed:     v1alpha1.ReasonConnectionFailed,
		contract.ReasonCredentialsMissing:   v1alpha1.ReasonCredentialsMissing,
		contract.ReasonAuthenticationFailed: v1alpha1.ReasonAuthenticationFailed,
		contract.ReasonCertificateInvalid:   v1alpha1.ReasonCertificateInvalid,
		contract.ReasonSystemError:          v1alpha1.ReasonSystemError,
		contract.ReasonStreamFull:           v1alpha1.ReasonStreamFull,
		contract.ReasonDeadLetterFull:       v1alpha1.ReasonDeadLetterFull,
		contract.ReasonBrokerUnreachable:    v1alpha1.ReasonBrokerUnreachable,
		contract.ReasonSuspended:            v1alpha1.ReasonSuspended,
	} {
		if report != api {
			t.Errorf("a pod says %q where the API says %q", report, api)
		}
	}
}
