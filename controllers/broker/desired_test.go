package broker

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
)

var update = flag.Bool("update", false, "write the golden files")

// managed is the scope of a Broker team/bus.
func managed(t *testing.T, replicas int32, change func(*v1alpha1.Broker)) *scope {
	t.Helper()
	b := &v1alpha1.Broker{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "bus", UID: "b-1", Generation: 1},
		Spec: v1alpha1.BrokerSpec{
			AllowedNamespaces: &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromSame},
			Managed: &v1alpha1.ManagedBroker{
				Replicas: new(replicas), Durability: v1alpha1.DurabilityFsync, DeletionPolicy: v1alpha1.DeletionPolicyRetain,
				Storage: v1alpha1.BrokerStorage{Size: resource.MustParse("10Gi")},
			},
		},
	}
	if change != nil {
		change(b)
	}
	keys, err := bus.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return &scope{
		broker: b, now: time.Now(), keys: keys, configHash: "hash",
		certificates: bus.Certificates{Bundle: []byte("bundle"), Cert: []byte("cert"), Key: []byte("key")},
	}
}

func TestChildren(t *testing.T) {
	defaults := Defaults{Image: "registry/metip@sha256:0", Resources: DefaultResources(), FixedGroup: true}
	for name, s := range map[string]*scope{
		"one": managed(t, 1, func(b *v1alpha1.Broker) {
			b.Spec.Managed.DeletionPolicy = v1alpha1.DeletionPolicyDelete
			b.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesFromAll}
		}),
		"three": managed(t, 3, func(b *v1alpha1.Broker) {
			b.Spec.Managed.Storage.ClassName = new("fast")
			b.Spec.Managed.Template = &v1alpha1.PodTemplate{
				Labels: map[string]string{"cost": "custody"}, NodeSelector: map[string]string{"disk": "ssd"},
				Resources: &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}},
			}
			b.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{
				From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"bus": "yes"}},
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for _, o := range []client.Object{
				buildHeadlessService(s), buildClientService(s), buildDisruptionBudget(s), buildNetworkPolicy(s, "metip-system"), buildStatefulSet(s, defaults),
			} {
				out, err := yaml.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				text.WriteString("---\n")
				text.Write(out)
			}
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(text.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), text.String()); d != "" {
				t.Errorf("children (-want +got):\n%s", d)
			}
		})
	}
}

func TestOnlyWhatNeedsARestartChangesTheHash(t *testing.T) {
	s := managed(t, 3, nil)
	_, before := buildSettings(s)
	other := managed(t, 3, nil) // other keys: another operator
	if _, hash := buildSettings(other); hash == before {
		t.Error("another operator's key does not change the hash")
	}
	conf := serverConfig(s)
	conf.Preload = map[string]string{"A": "other claims"}
	if conf.Static() != serverConfig(s).Static() {
		t.Error("claims are part of what needs a restart")
	}
	for name, change := range map[string]func(){
		"certificate": func() { s.certificates.Cert = []byte("renewed") },
		"servers":     func() { s.broker.Spec.Managed.Replicas = new(int32(5)) },
		"durability":  func() { s.broker.Spec.Managed.Durability = v1alpha1.DurabilityReplicated },
		"volume": func() {
			s.volumes = []corev1.PersistentVolumeClaim{{Status: corev1.PersistentVolumeClaimStatus{Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}}}}
		},
	} {
		change()
		if _, hash := buildSettings(s); hash == before {
			t.Errorf("%s: the hash is the same", name)
		} else {
			before = hash
		}
	}
	if got, want := maxFileStore(s), int64(4)<<30; got != want {
		t.Errorf("max_file_store %d, want %d: four fifths of the smallest volume", got, want)
	}
}

func pod(name, revision string, ready bool) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: revision}}}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	return p
}

func TestRollTakesOneServerAtATimeTheLeaderLast(t *testing.T) {
	healthy := func(leader string) bus.Health {
		h := bus.Health{Leader: leader}
		for _, name := range []string{"bus-broker-0", "bus-broker-1", "bus-broker-2"} {
			h.Servers = append(h.Servers, bus.ServerHealth{Name: name, OK: true})
		}
		return h
	}
	sick := healthy("bus-broker-0")
	sick.Servers[1].OK = false
	leaving := pod("bus-broker-1", "old", true)
	leaving.DeletionTimestamp = new(metav1.Now())
	for name, c := range map[string]struct {
		replicas int32
		pods     []corev1.Pod
		health   bus.Health
		down     bool
		replace  string
		waits    bool
	}{
		"nothing to do":           {3, []corev1.Pod{pod("bus-broker-0", "new", true), pod("bus-broker-1", "new", true), pod("bus-broker-2", "new", true)}, healthy("bus-broker-0"), false, "", false},
		"the highest first":       {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "old", true)}, healthy("bus-broker-0"), false, "bus-broker-2", true},
		"not the leader":          {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "old", true)}, healthy("bus-broker-2"), false, "bus-broker-1", true},
		"the leader last":         {3, []corev1.Pod{pod("bus-broker-0", "new", true), pod("bus-broker-1", "new", true), pod("bus-broker-2", "old", true)}, healthy("bus-broker-2"), false, "bus-broker-2", true},
		"a copy is behind":        {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "new", true)}, sick, false, "", true},
		"a server does not say":   {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "new", true)}, bus.Health{Leader: "bus-broker-0", Servers: sick.Servers[:2]}, false, "", true},
		"no leader":               {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "new", true)}, healthy(""), false, "", true},
		"one is stopping":         {3, []corev1.Pod{pod("bus-broker-0", "old", true), leaving, pod("bus-broker-2", "new", true)}, healthy("bus-broker-0"), false, "", true},
		"a new one is not ready":  {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "new", false)}, healthy("bus-broker-0"), false, "", true},
		"a new one is missing":    {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true)}, healthy("bus-broker-0"), false, "", true},
		"an old one is broken":    {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", false), pod("bus-broker-2", "old", true)}, healthy("bus-broker-0"), true, "bus-broker-1", true},
		"three do not answer":     {3, []corev1.Pod{pod("bus-broker-0", "old", true), pod("bus-broker-1", "old", true), pod("bus-broker-2", "old", true)}, healthy("bus-broker-0"), true, "", true},
		"one server":              {1, []corev1.Pod{pod("bus-broker-0", "old", true)}, bus.Health{}, false, "bus-broker-0", true},
		"one that does not serve": {1, []corev1.Pod{pod("bus-broker-0", "old", true)}, bus.Health{}, true, "bus-broker-0", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := managed(t, c.replicas, nil)
			s.servers = &appsv1.StatefulSet{Status: appsv1.StatefulSetStatus{UpdateRevision: "new"}}
			s.pods, s.health, s.connection.Live = c.pods, c.health, !c.down
			got := nextRoll(s)
			if got.replace != c.replace || (got.waits != "") != c.waits {
				t.Errorf("replace %q, says %q; want %q", got.replace, got.waits, c.replace)
			}
		})
	}
}

func TestNumberOfServersOnlyChangesWhereStreamsSurvive(t *testing.T) {
	for _, c := range []struct {
		had     string
		want    int32
		refused bool
	}{{"1", 1, false}, {"3", 3, false}, {"3", 5, false}, {"1", 3, true}, {"3", 1, true}, {"5", 3, true}, {"", 3, false}} {
		s := managed(t, c.want, nil)
		s.keySecret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{annotationServers: c.had}}}
		if err := checkSize(s); (err != nil) != c.refused {
			t.Errorf("from %s to %d: %v", c.had, c.want, err)
		}
	}
}
