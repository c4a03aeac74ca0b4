package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

// memoryLimit of a pod's container, as the operator sets it where the Connector says nothing.
const memoryLimit = 256 << 20

// confine a process to the memory of a pod, by a cgroup if this process may make one: then it is killed when it takes more. Otherwise its
// highest resident memory is all that tells.
func confine(t *testing.T, u *unit) {
	t.Helper()
	for _, c := range []struct{ base, limit string }{
		{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		if _, err := os.Stat(filepath.Join(c.base, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(c.base, fmt.Sprintf("metip-chaos-%d-%s", os.Getpid(), u.name))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			u.process.Kill()
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if os.WriteFile(filepath.Join(dir, c.limit), []byte(strconv.Itoa(memoryLimit)), 0o600) != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(u.process.Pid())), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Logf("%s: no cgroup could be made; only its resident memory is looked at", u.name)
}

// peak of a process's resident memory.
func peak(t *testing.T, u *unit) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", u.process.Pid()))
	if err != nil {
		t.Fatalf("%s has ended: %v", u.name, err)
	}
	_, rest, running := strings.Cut(string(raw), "VmHWM:")
	if !running {
		t.Fatalf("%s was killed for its memory", u.name)
	}
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// heavyBody is a JSON document of the largest size that a filter has to decode. Those of kind 1 are hostile: they take many times their size when
// they are decoded.
func heavyBody(id string, hostile bool) []byte {
	head := fmt.Sprintf(`{"id":%q,"keep":true,"pad":`, id)
	size := contract.MaxMessageSize - len(head) - 16
	var b bytes.Buffer
	b.WriteString(head)
	if hostile {
		b.WriteString("[" + strings.Repeat("{},", size/3) + "{}]")
	} else {
		item := `{"station":"Kings Road","offence":"TH68-1","officer":1042,"narrative":"` + strings.Repeat("a man was seen to leave by the rear ", 4) + `"},`
		b.WriteString("[" + strings.Repeat(item, size/len(item)) + "0]")
	}
	b.WriteString("}")
	return b.Bytes()
}

// TestMemoryIsBounded: messages of the largest size from many callers at a time, to slow destinations that decode them: no pod takes more than
// its container's limit, and everything arrives. What would burst a pod once it is decoded ends in the dead letters.
func TestMemoryIsBounded(t *testing.T) {
	b := build(t)
	for _, hostile := range []bool{false, true} {
		t.Run(fmt.Sprintf("hostile %t", hostile), func(t *testing.T) { boundedMemory(t, b, hostile) })
	}
}

const heavyMessages, heavyCallers, heavyRoutes = 16, 12, 4

func boundedMemory(t *testing.T, b binaries, hostile bool) {
	w := &world{t: t, dice: &dice{r: rand.New(rand.NewPCG(1, 1))}, dir: t.TempDir(), links: map[*unit][]*link{}}
	w.startBroker(b, 1, false)
	w.startDatabase()
	w.database.Exec(t, "postgres", "CREATE TABLE documents (id text PRIMARY KEY, body jsonb); GRANT SELECT, INSERT, UPDATE ON documents TO bus")
	arrived := w.startHeavyPods(b)
	pods := []*unit{w.source, w.http, w.sql}
	for _, u := range pods {
		confine(t, u)
		eventually(t, 60*time.Second, u.name+" is ready", u.answers)
	}
	url, client := "http://"+w.listener+"/cases", &http.Client{Timeout: time.Minute}
	var all sync.WaitGroup
	var next atomic.Int64
	for range heavyCallers {
		all.Go(func() {
			for n := next.Add(1); n <= heavyMessages; n = next.Add(1) {
				id := fmt.Sprintf("m%03d", n)
				for body := heavyBody(id, hostile); post(t.Context(), client, url, "application/json", id, body) != http.StatusAccepted && t.Context().Err() == nil; {
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	eventually(t, 3*time.Minute, "everything has arrived", func() bool {
		for _, u := range pods {
			peak(t, u)
		}
		rows := w.database.Query(t, "postgres", "SELECT count(*) FROM documents")
		if hostile {
			stream, err := w.broker.JetStream().Stream(t.Context(), contract.DeadStream(loopback.Namespace, "chaos"))
			return err == nil && stream.CachedInfo().State.Msgs == heavyMessages*(heavyRoutes+1)
		}
		return arrived.Load() >= heavyMessages*heavyRoutes && rows[0][0] == strconv.Itoa(heavyMessages)
	})
	if n := arrived.Load(); hostile && n > 0 {
		t.Errorf("%d messages were delivered that cannot be decoded", n)
	}
	for _, u := range pods {
		n := peak(t, u)
		t.Logf("%s: %d MiB at most", u.name, n>>20)
		if n > memoryLimit {
			t.Errorf("%s took %d MiB, and its container has %d", u.name, n>>20, memoryLimit>>20)
		}
	}
}

// startHeavyPods starts a source, an HTTP sink with several slow Routes, and a PostgreSQL sink. It counts what the HTTP system was given.
func (w *world) startHeavyPods(b binaries) (arrived *atomic.Int64) {
	t := w.t
	arrived = &atomic.Int64{}
	l := listen(t, "127.0.0.1:0")
	target := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(500 * time.Millisecond)
		arrived.Add(1)
	})}
	go func() { _ = target.Serve(l) }()
	t.Cleanup(func() { _ = target.Close() })
	w.listener = freeAddress(t)

	filter := contract.Step{Name: "filter", Filter: "data.keep && data.all(k, k != '')"} // looks at everything
	var flows []loopback.Flow
	var routes []contract.Route
	for n := range heavyRoutes {
		f := loopback.Flow{Integration: "chaos", Source: "in", Route: fmt.Sprintf("to-http-%d", n), Destination: "d", Sink: "http"}
		flows, routes = append(flows, f), append(routes, heavy(route(f, filter)))
	}
	limits := loopback.DefaultLimits()
	limits.MaxBytes, limits.DeadMaxBytes = 1<<30, 1<<30
	httpUsers := w.prepare(limits, flows[0], flows[1:]...)
	sqlFlow := loopback.Flow{Integration: "chaos", Source: "in", Route: "to-sql", Destination: "d", Sink: "sql"}
	sqlUsers := w.prepare(limits, sqlFlow)

	source := w.config("in")
	source.Source = &contract.Source{
		System:    contract.System{Type: "http", Options: json.RawMessage(`{"path":"/cases","maxBodySize":"8Mi"}`)},
		EventType: "case", Format: "JSON", DeduplicationWindow: contract.Duration(window),
	}
	w.source = w.pod(b, source, httpUsers.Source, nil)
	toHTTP := w.config("http")
	toHTTP.Sink = &contract.Sink{System: w.system("http", map[string]any{
		"url": "http://" + l.Addr().String(), "request": map[string]any{"method": "PUT", "path": "/cases/{data.id}"},
	}), Routes: routes}
	w.http = w.pod(b, toHTTP, httpUsers.Sink, nil)
	toSQL := w.config("sql")
	toSQL.Sink = &contract.Sink{System: w.postgres("documents", map[string]any{"id": "data.id", "body": "data"}), Routes: []contract.Route{heavy(route(sqlFlow, filter))}}
	w.sql = w.databasePod(b, toSQL, sqlUsers.Sink)
	return arrived
}

// heavy messages take their time.
func heavy(r contract.Route) contract.Route {
	r.Delivery.Timeout = contract.Duration(time.Minute)
	return r
}
