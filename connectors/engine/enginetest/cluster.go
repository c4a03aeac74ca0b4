package enginetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/contract"
)

// envServer holds the configuration file of a child that is to be a server.
const envServer = "METIP_TEST_NATS_CONF"

// Main has to be called first by the TestMain of a package that starts clusters: in a child that is to be a server it is one, and never
// returns.
func Main() {
	file := os.Getenv(envServer)
	if file == "" {
		return
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		panic(err)
	}
	options.NoSigs = true
	s, err := server.NewServer(options)
	if err != nil {
		panic(err)
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	os.Exit(0)
}

// Cluster is a broker of one or three servers, each a process of its own that can be killed and frozen. Everything is encrypted, clients and
// the servers among themselves, as a managed Broker's servers are.
type Cluster struct {
	*Server
	nodes []*node
}

type node struct {
	name        string
	port, route int
	conf        string
	process     *Process
}

// StartCluster of o.Servers (3 when zero), which ends with the test. The package's TestMain has to call Main.
func StartCluster(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Servers == 0 {
		o.Servers = 3
	}
	c := &Cluster{Server: &Server{t: t, dir: o.Dir, fsync: o.Fsync, replicas: o.Servers}}
	if c.dir == "" {
		c.dir = t.TempDir()
	}
	c.makeAccounts()
	c.makeCertificates()
	for i := range o.Servers {
		n := &node{name: "n" + strconv.Itoa(i), port: freePort(t), route: freePort(t)}
		c.nodes = append(c.nodes, n)
		c.urls = append(c.urls, "tls://127.0.0.1:"+strconv.Itoa(n.port))
	}
	for i := range c.nodes {
		c.configure(c.nodes[i])
		c.Boot(i)
	}
	// A connection is told of the end before the servers are.
	t.Cleanup(func() {
		if c.admin != nil {
			c.admin.Close()
			c.admin = nil
		}
	})
	c.await()
	return c
}

func (c *Cluster) makeCertificates() {
	authority := must[*certs.Authority](c.t, "make an authority")(certs.New("test broker CA"))
	c.ca = authority.PEM
	cert, key, err := authority.Issue(time.Now().Add(12*time.Hour), "127.0.0.1")
	if err != nil {
		c.t.Fatalf("make a certificate: %v", err)
	}
	for name, content := range map[string]string{"ca.crt": c.ca, "tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// configure a server as the operator does.
func (c *Cluster) configure(n *node) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	files := fmt.Sprintf("cert_file: %q, key_file: %q, ca_file: %q, timeout: 5", filepath.Join(c.dir, "tls.crt"), filepath.Join(c.dir, "tls.key"), filepath.Join(c.dir, "ca.crt"))
	line("server_name: %s", n.name)
	line("listen: 127.0.0.1:%d", n.port)
	line("max_payload: %d", contract.MaxMessageSize+contract.MaxHeaderSize)
	line("max_control_line: 1048576")
	line("write_deadline: \"10s\"\nping_interval: \"10s\"\nping_max: 2")
	line("tls { %s }", files)
	sync := `"2m"`
	if c.fsync {
		sync = "always"
	}
	line("jetstream { store_dir: %q, sync_interval: %s, limits { batch { timeout: \"2s\" } } }", filepath.Join(c.dir, n.name), sync)
	if len(c.nodes) > 1 {
		line("cluster { name: test, listen: 127.0.0.1:%d, no_advertise: true, tls { %s, verify: true }, routes: [", n.route, files)
		for _, other := range c.nodes {
			line("  \"tls://127.0.0.1:%d\"", other.route)
		}
		line("] }")
	}
	line("operator: %s", c.operatorJWT)
	line("system_account: %s", must[string](c.t, "key")(c.system.PublicKey()))
	line("resolver { type: full, dir: %q, allow_delete: true, interval: \"10s\", timeout: \"2s\" }", filepath.Join(c.dir, n.name+"-jwt"))
	line("resolver_preload: {")
	for key, claims := range c.accounts {
		line("  %s: %s", key, claims)
	}
	line("}")
	n.conf = filepath.Join(c.dir, n.name+".conf")
	if err := os.WriteFile(n.conf, []byte(b.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// Servers of the cluster.
func (c *Cluster) Servers() int { return len(c.nodes) }

// Boot server i, again after Kill: at the same address, with what is on disk.
func (c *Cluster) Boot(i int) {
	c.t.Helper()
	c.nodes[i].process = RunServer(c.t, "server "+c.nodes[i].name, c.nodes[i].conf)
}

// RunServer starts a server of a configuration file, as a process of its own that ends with the test. The package's TestMain has to call Main.
func RunServer(t testing.TB, name, conf string) *Process {
	t.Helper()
	return Spawn(t, name, envServer+"="+conf)
}

// Kill server i as kill -9 does. Its files stay.
func (c *Cluster) Kill(i int) { c.nodes[i].process.Kill() }

// Freeze server i: it keeps its connections and answers nothing.
func (c *Cluster) Freeze(i int) { c.nodes[i].process.Freeze() }

// Thaw a frozen server.
func (c *Cluster) Thaw(i int) { c.nodes[i].process.Thaw() }

// await the moment when streams can be made and every server has its part.
func (c *Cluster) await() {
	c.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := c.ready()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the servers are not ready: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) ready() error {
	for _, n := range c.nodes {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(n.port), time.Second)
		if err != nil {
			return err
		}
		_ = conn.Close()
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	// A stream on all servers can be made once each has its part.
	probe := jetstream.StreamConfig{Name: "probe", Subjects: []string{"probe"}, Replicas: len(c.nodes), Storage: jetstream.MemoryStorage}
	if _, err := c.Admin().CreateStream(ctx, probe); err != nil {
		return err
	}
	return c.Admin().DeleteStream(ctx, probe.Name)
}

// StepDown makes the leader of a stream, or of one of its durable consumers, give up its part. It is no error that there is none at the moment.
func (c *Cluster) StepDown(stream, durable string) {
	subject := "$JS.API.STREAM.LEADER.STEPDOWN." + stream
	if durable != "" {
		subject = "$JS.API.CONSUMER.LEADER.STEPDOWN." + stream + "." + durable
	}
	_, _ = c.AdminConn().Request(subject, nil, 2*time.Second)
}

// Leader of a stream: the number of its server, or -1.
func (c *Cluster) Leader(stream string) int {
	answer, err := c.AdminConn().Request("$JS.API.STREAM.INFO."+stream, nil, 2*time.Second)
	if err != nil {
		return -1
	}
	var info struct {
		Cluster struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
	}
	if json.Unmarshal(answer.Data, &info) != nil {
		return -1
	}
	for i, n := range c.nodes {
		if n.name == info.Cluster.Leader || len(c.nodes) == 1 {
			return i
		}
	}
	return -1
}

// secure is the option of a client that the servers' certificates are checked by.
func (s *Server) secure() nats.Option {
	if s.ca == "" {
		return func(*nats.Options) error { return nil }
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.ca))
	return nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
}
