package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/postgrestest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

const (
	// streamSize is small, so that the trimmer always has work, and a stalled sink fills it.
	streamSize = 24 << 20
	// window of de-duplication: a client that repeats a message later than that may have it stored twice. Trimming stops at its start.
	window = 30 * time.Second
)

// world is a flow that runs, and everything that can break.
type world struct {
	t    *testing.T
	dice *dice
	dir  string

	broker  *loopback.Broker
	servers []*unit
	// disks of the servers, if each has a volume of its own.
	disks []*disk

	source, http, sql *unit
	// claims is the source of large bodies; nil where there are none.
	claims        *unit
	claimListener string
	// links of each pod, one to each server.
	links    map[*unit][]*link
	listener string

	target   *target
	database *postgrestest.Server
	flows    map[*unit]loopback.Flow

	started time.Time
	mu      sync.Mutex
	faults  []fault
}

// fault that was made.
type fault struct {
	kind string
	// subjects are what it hit: source, http, sql, broker, target, database.
	subject  string
	from, to time.Time
}

func newWorld(t *testing.T, b binaries, servers int, d *dice) *world {
	w := &world{t: t, dice: d, started: time.Now(), dir: t.TempDir(), links: map[*unit][]*link{}, flows: map[*unit]loopback.Flow{}}
	w.startBroker(b, servers, true)
	w.target = newTarget(t, d)
	w.startDatabase()
	w.listener = freeAddress(t)
	w.startPods(b)
	for _, u := range []*unit{w.source, w.claims, w.http, w.sql} {
		eventually(t, 60*time.Second, u.name+" is ready", u.answers)
	}
	return w
}

// startBroker starts servers, with volumes of their own if that is wanted and this process may make them.
func (w *world) startBroker(b binaries, servers int, volumes bool) {
	t := w.t
	dir := filepath.Join(w.dir, "broker")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.broker, err = loopback.New(dir, loopback.Options{Servers: servers, Fsync: true, TrimInterval: time.Second}); err != nil {
		t.Fatal(err)
	}
	var ports, routes, urls []string
	for range servers {
		ports = append(ports, portOf(t, freeAddress(t)))
		routes = append(routes, portOf(t, freeAddress(t)))
	}
	for i := range servers {
		args := append([]string{b.server}, w.broker.Arguments(i, fmt.Sprintf("n%d", i), ports[i], routes...)...)
		if volumes {
			if d := newDisk(t, w.broker.DataDir(i)); d != nil {
				w.disks = append(w.disks, d)
				args = d.command(args)
			}
		}
		u := &unit{t: t, name: fmt.Sprintf("broker-%d", i), probe: "tcp://127.0.0.1:" + ports[i], make: func() *exec.Cmd {
			return exec.Command(args[0], args[1:]...)
		}}
		u.start()
		w.servers = append(w.servers, u)
		urls = append(urls, "tls://127.0.0.1:"+ports[i])
	}
	for _, u := range w.servers {
		eventually(t, 30*time.Second, u.name+" listens", u.answers)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.broker.Open(t.Context(), strings.Join(urls, ",")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.broker.Close)
	// Streams on all servers can be made once each of them has its part.
	for ctx.Err() == nil {
		if _, err = w.broker.JetStream().AccountInfo(ctx); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("the broker is not ready: %v", err)
}

func (w *world) startDatabase() {
	t := w.t
	var err error
	if w.database, err = postgrestest.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.database.Close)
	// The table notes every write, also one that changes nothing.
	w.database.Exec(t, "postgres", `CREATE ROLE bus LOGIN PASSWORD 'bus';
CREATE TABLE writes (id text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.writes VALUES (NEW.id); RETURN NULL; END $$;
CREATE TABLE cases (id text PRIMARY KEY);
CREATE TRIGGER note AFTER INSERT OR UPDATE ON cases FOR EACH ROW EXECUTE FUNCTION note();
GRANT USAGE, CREATE ON SCHEMA public TO bus; GRANT SELECT, INSERT, UPDATE ON cases TO bus`)
}

// startPods starts the source and both sinks, as the operator configures them.
func (w *world) startPods(b binaries) {
	httpFlow := loopback.Flow{Integration: "chaos", Source: "in", Route: "to-http", Destination: "d", Sink: "http"}
	sqlFlow := loopback.Flow{Integration: "chaos", Source: "in", Route: "to-sql", Destination: "d", Sink: "sql"}
	limits := loopback.Limits{MaxBytes: streamSize, DeadMaxBytes: streamSize, Retention: time.Second, DeduplicationWindow: window, ClaimsMaxBytes: claimsSize}
	claimFlow := loopback.Flow{Integration: "chaos", Source: "blobs", Route: "blobs-to-http", Destination: "d", Sink: "http"}
	httpUsers, sqlUsers := w.prepare(limits, httpFlow, claimFlow), w.prepare(limits, sqlFlow)

	source := w.config("in")
	source.Source = &contract.Source{
		System:    contract.System{Type: "http", Options: json.RawMessage(`{"path":"/cases","maxBodySize":"1Mi"}`)},
		EventType: "case", Format: "JSON", DeduplicationWindow: contract.Duration(window),
	}
	w.source = w.pod(b, source, httpUsers.Source, nil)
	w.startClaims(b, limits, claimFlow)

	filter := contract.Step{Name: "filter", Filter: "data.keep"}
	toHTTP := w.config("http")
	toHTTP.Sink = &contract.Sink{System: w.system("http", map[string]any{
		"url": w.target.url, "request": map[string]any{"method": "PUT", "path": "/cases/{data.id}"},
	}), Routes: []contract.Route{route(httpFlow, filter), claimRoute(claimFlow)}}
	w.http = w.pod(b, toHTTP, httpUsers.Sink, nil)
	w.flows[w.http] = httpFlow

	toSQL := w.config("sql")
	toSQL.Sink = &contract.Sink{System: w.postgres("cases", map[string]any{"id": "data.id"}), Routes: []contract.Route{route(sqlFlow, filter)}}
	w.sql = w.databasePod(b, toSQL, sqlUsers.Sink)
	w.flows[w.sql] = sqlFlow
}

// postgres is the system of a sink that writes to a table of the database whose key is id.
func (w *world) postgres(table string, columns map[string]any) contract.System {
	return w.system("postgres", map[string]any{
		"connection": map[string]any{"host": w.database.Host, "port": w.database.Port, "database": "postgres"},
		"write":      map[string]any{"table": table, "keyColumns": []string{"id"}, "columns": columns},
	})
}

func (w *world) databasePod(b binaries, c *contract.Config, user []byte) *unit {
	c.Auth = contract.Auth{Kind: contract.AuthBasic, SecretName: "db", Keys: []string{"username", "password"}}
	c.TLS = &contract.TLS{CA: true, CAFrom: "secret db-ca key ca.crt"}
	return w.pod(b, c, user, map[string]string{"username": "bus", "password": "bus", "ca.crt": w.database.CA.PEM})
}

// prepare flows between the same Connectors. In a cluster that has just started it may take a while until that can be done.
func (w *world) prepare(l loopback.Limits, f loopback.Flow, others ...loopback.Flow) loopback.Users {
	var users loopback.Users
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if users, err = w.broker.Prepare(w.t.Context(), l, f, others...); err == nil {
			return users
		}
	}
	w.t.Fatal(err)
	return users
}

func route(f loopback.Flow, steps ...contract.Step) contract.Route {
	d := loopback.Delivery()
	d.Timeout, d.Attempts, d.Backoff, d.MaxBackoff = contract.Duration(5*time.Second), 1000, contract.Duration(100*time.Millisecond), contract.Duration(2*time.Second)
	return contract.Route{
		Name: f.Route, UID: f.Route, Generation: 1, Destination: f.Destination, Integration: f.Integration, Stream: f.Stream(), Durable: f.Durable(),
		Steps: steps, Delivery: d,
	}
}

func (w *world) config(name string) *contract.Config {
	return &contract.Config{
		Version: contract.ConfigVersion, Hash: "chaos", Auth: contract.Auth{Kind: contract.AuthAnonymous},
		Connector: contract.Connector{Namespace: loopback.Namespace, Name: name, UID: "uid-" + name, Generation: 1, Created: time.Now(), Integration: "chaos"},
	}
}

func (w *world) system(kind string, options any) contract.System {
	raw, err := json.Marshal(options)
	if err != nil {
		w.t.Fatal(err)
	}
	return contract.System{Type: kind, Options: raw}
}

// pod is a connector's process, with what the operator would mount in files. It reaches the servers over links of its own.
func (w *world) pod(b binaries, c *contract.Config, user []byte, secrets map[string]string) *unit {
	t := w.t
	name := c.Connector.Name
	var links []*link
	c.Broker = w.broker.Client()
	for i := range c.Broker.URLs {
		k := newLink(t, strings.TrimPrefix(c.Broker.URLs[i], "tls://"))
		links = append(links, k)
		c.Broker.URLs[i] = "tls://" + k.address()
	}
	dir := filepath.Join(w.dir, name)
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"config.json": string(raw), "user.creds": string(user)}
	for file, value := range secrets {
		files["system/"+file] = value
	}
	if err := os.MkdirAll(filepath.Join(dir, "system"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	health := freeAddress(t)
	listen := w.listener
	if c.Source == nil {
		listen = freeAddress(t)
	}
	u := &unit{t: t, name: name, probe: "http://" + health + "/readyz", make: func() *exec.Cmd {
		cmd := exec.Command(b.connector, "-config", filepath.Join(dir, "config.json"), "-creds", filepath.Join(dir, "user.creds"),
			"-system-dir", filepath.Join(dir, "system"), "-listen", listen, "-health-addr", health, "-allow-loopback")
		cmd.Env = []string{contract.EnvPodName + "=" + name + "-0", "GOMEMLIMIT=217MiB"}
		return cmd
	}}
	u.start()
	w.links[u] = links
	return u
}
