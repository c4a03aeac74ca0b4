package bus_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

func report(t *testing.T, nc *nats.Conn, pod string, r contract.Report) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(contract.StatusSubject("ns", "src", pod), text); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestReportsReachTheOperatorAndSurviveItsRestart(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	session, registry := b.Session(nil)
	user, err := session.IssueUser("ns_src", contract.SourcePermissions("ns", "intg", "src"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	nc := b.Connect(user.Creds)
	told := func(want bool) {
		t.Helper()
		select {
		case got := <-registry.Connectors():
			if !want || got != (types.NamespacedName{Namespace: "ns", Name: "src"}) {
				t.Errorf("told of %s", got)
			}
		case <-time.After(500 * time.Millisecond):
			if want {
				t.Error("not told")
			}
		}
	}
	r := contract.Report{ConfigHash: "h", Started: time.Now(), Sequence: 1, System: contract.State{OK: true}, Bus: contract.State{OK: true}}
	report(t, nc, "pod-0", r)
	told(true)
	r.Sequence++
	report(t, nc, "pod-0", r)
	told(false)
	r.Sequence++
	r.System = contract.State{Reason: contract.ReasonConnectionFailed, Message: "db:5432: refused"}
	report(t, nc, "pod-0", r)
	told(true)
	report(t, nc, "pod-1", r)
	told(true)
	if got := session.Reports("ns", "src"); len(got) != 2 || got[0].Pod != "pod-0" || got[0].Report.System.OK {
		t.Fatalf("reports: %+v", got)
	}

	second, _ := b.Session(nil) // as an operator that has just started
	if got := second.Reports("ns", "src"); len(got) != 2 || got[0].Report.Sequence != 3 {
		t.Errorf("reports after a restart: %+v", got)
	}
}

func TestRubbishReportsAreDropped(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	session, _ := b.Session(nil)
	nc, _ := b.Admin()
	for subject, body := range map[string]string{"status.ns.src.pod": "{", "status.ns.src": "{}", "status.ns.src.a.b": "{}", "status.ns.other.pod": "[]"} {
		if err := nc.Publish(subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	report(t, nc, "last", contract.Report{Started: time.Now()})
	eventually(t, 5*time.Second, func() string {
		if got := session.Reports("ns", "src"); len(got) != 1 || got[0].Pod != "last" {
			return "not only the good one"
		}
		return ""
	})
}

func TestSessionIsLostAndRegained(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	_, registry := b.Session(nil)
	name := types.NamespacedName{Namespace: "metip-system", Name: "default"}
	h, err := registry.Health(t.Context(), name)
	if err != nil || len(h.Servers) != 1 || !h.Servers[0].OK || h.Servers[0].Max != 1<<30 || h.Servers[0].Version == "" {
		t.Errorf("health: %+v, %v", h, err)
	}
	b.Stop(0)
	stopped := time.Now()
	eventually(t, 10*time.Second, func() string {
		if _, err := registry.Session(name); err == nil {
			return "the session counts as live"
		}
		return ""
	})
	t.Logf("lost after %s: %v", time.Since(stopped).Round(100*time.Millisecond), func() error { _, err := registry.Session(name); return err }())
	b.Restart(0)
	eventually(t, 10*time.Second, func() string {
		if _, err := registry.Session(name); err != nil {
			return err.Error()
		}
		return ""
	})
}
