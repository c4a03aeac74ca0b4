package bustest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
)

// Options of the servers.
type Options struct {
	// Servers is 1 when zero, or 3.
	Servers int
	// Fsync before every acknowledgement; tests are faster without.
	Fsync bool
	// MaxFileStore of each server; 1 GiB when zero.
	MaxFileStore int64
	// Log of the sessions; the zero value writes nothing.
	Log logr.Logger
}

// Broker is a set of running servers. Its methods fail the test that started it.
type Broker struct {
	t       testing.TB
	dir     string
	keys    *bus.Keys
	options Options
	ca      []byte
	creds   map[string][]byte
	ports   []int
	routes  []int

	mu      sync.Mutex
	servers []*server.Server
}

const startTimeout = 20 * time.Second

// Start the servers and wait until JetStream works. They stop when the test ends.
func Start(t testing.TB, o Options) *Broker {
	t.Helper()
	if o.Servers == 0 {
		o.Servers = 1
	}
	if o.MaxFileStore == 0 {
		o.MaxFileStore = 1 << 30
	}
	// Not the test's own temporary directory: a server that is killed may still write while it is removed.
	dir, err := os.MkdirTemp("", "metip-bustest-")
	if err != nil {
		t.Fatalf("making a directory: %v", err)
	}
	b := &Broker{t: t, dir: dir, options: o, servers: make([]*server.Server, o.Servers)}
	t.Cleanup(b.close)
	if b.keys, err = bus.NewKeys(); err != nil {
		t.Fatalf("making keys: %v", err)
	}
	b.writeCertificates()
	b.makeCredentials()
	b.ports, b.routes = freePorts(t, o.Servers), freePorts(t, o.Servers)
	for i := range o.Servers {
		b.boot(i)
	}
	b.waitReady()
	return b
}

// URL of all servers, comma separated, as spec.external.url takes it.
func (b *Broker) URL() string { return strings.Join(b.Client().URLs, ",") }

// Client is what a connector's configuration says of these servers.
func (b *Broker) Client() contract.Broker {
	urls := make([]string, len(b.ports))
	for i, p := range b.ports {
		urls[i] = fmt.Sprintf("tls://127.0.0.1:%d", p)
	}
	return contract.Broker{URLs: urls, CA: string(b.ca), Replicas: b.options.Servers, Fsync: b.options.Fsync}
}

// Credentials are the data of an external Broker's Secret, complete: users can be revoked.
func (b *Broker) Credentials() map[string][]byte { return b.creds }

// Keys of the accounts.
func (b *Broker) Keys() *bus.Keys { return b.keys }

// Params of a session with these servers, as the Broker controller makes them for an external Broker.
func (b *Broker) Params() bus.Params {
	b.t.Helper()
	p, err := bus.ExternalParams(b.creds, b.Client())
	if err != nil {
		b.t.Fatalf("credentials: %v", err)
	}
	return p
}

// Session starts a registry with one live session for these servers. change may alter the parameters; nil leaves them.
func (b *Broker) Session(change func(*bus.Params)) (bus.Session, *bus.Registry) {
	b.t.Helper()
	p := b.Params()
	if change != nil {
		change(&p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	registry := bus.NewRegistry(ctx, b.options.Log)
	b.t.Cleanup(func() { registry.Close(); cancel() })
	name := types.NamespacedName{Namespace: "metip-system", Name: "default"}
	if err := registry.Set(name, p); err != nil {
		b.t.Fatalf("session: %v", err)
	}
	deadline := time.Now().Add(startTimeout)
	for {
		session, err := registry.Session(name)
		if err == nil {
			return session, registry
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("session: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Admin is a connection to account BUS with every right.
func (b *Broker) Admin() (*nats.Conn, jetstream.JetStream) {
	b.t.Helper()
	nc := b.Connect(b.creds[bus.CredentialsBus])
	js, err := jetstream.New(nc)
	if err != nil {
		b.t.Fatalf("jetstream: %v", err)
	}
	return nc, js
}

// Connect with credentials. It is closed when the test ends.
func (b *Broker) Connect(creds []byte, options ...nats.Option) *nats.Conn {
	b.t.Helper()
	nc, err := b.Dial(creds, options...)
	if err != nil {
		b.t.Fatalf("connecting: %v", err)
	}
	return nc
}

// Dial is Connect, but returns the error.
func (b *Broker) Dial(creds []byte, options ...nats.Option) (*nats.Conn, error) {
	return b.DialURL(b.URL(), creds, options...)
}

// DialURL is Dial, to certain servers.
func (b *Broker) DialURL(url string, creds []byte, options ...nats.Option) (*nats.Conn, error) {
	encoded, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		return nil, err
	}
	pair, err := jwt.ParseDecoratedUserNKey(creds)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b.ca)
	options = append([]nats.Option{
		nats.UserJWT(func() (string, error) { return encoded, nil }, pair.Sign),
		nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}),
		nats.ReconnectWait(50 * time.Millisecond), nats.MaxReconnects(-1),
	}, options...)
	nc, err := nats.Connect(url, options...)
	if err == nil {
		b.t.Cleanup(nc.Close)
	}
	return nc, err
}

// Stop server i. Its files stay.
func (b *Broker) Stop(i int) {
	b.mu.Lock()
	s := b.servers[i]
	b.servers[i] = nil
	b.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Restart server i, stopping it first if it runs, and wait until it takes connections.
func (b *Broker) Restart(i int) {
	b.t.Helper()
	b.Stop(i)
	b.boot(i)
}

// Server i; nil while it is stopped.
func (b *Broker) Server(i int) *server.Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.servers[i]
}

func (b *Broker) close() {
	for i := range b.servers {
		b.Stop(i)
	}
	_ = os.RemoveAll(b.dir)
}

func (b *Broker) writeCertificates() {
	b.t.Helper()
	data, _, err := bus.RenewCertificates(nil, []string{"127.0.0.1", "localhost"}, time.Now())
	if err != nil {
		b.t.Fatalf("making certificates: %v", err)
	}
	for _, name := range []string{"ca.crt", "tls.crt", "tls.key"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), data[name], 0o600); err != nil {
			b.t.Fatalf("writing certificates: %v", err)
		}
	}
	b.ca = data["ca.crt"]
}

func (b *Broker) makeCredentials() {
	b.t.Helper()
	seed := func(pair nkeys.KeyPair) []byte {
		text, err := pair.Seed()
		if err != nil {
			b.t.Fatalf("seed: %v", err)
		}
		return text
	}
	user := func(a bus.Account) []byte {
		creds, err := bus.IssueAdmin(a, "bustest", 24*time.Hour)
		if err != nil {
			b.t.Fatalf("issuing a user: %v", err)
		}
		return creds
	}
	b.creds = map[string][]byte{
		bus.CredentialsBus:      user(b.keys.Bus),
		bus.CredentialsSys:      user(b.keys.Sys),
		bus.CredentialsEdge:     []byte(b.keys.Edge.PublicKey),
		bus.CredentialsEdgeSeed: seed(b.keys.Edge.Signing),
		bus.CredentialsOperator: seed(b.keys.OperatorKey()),
		bus.CredentialsCA:       b.ca,
	}
}

// boot server i from the configuration that a managed Broker's servers get, but for addresses and directories.
func (b *Broker) boot(i int) {
	b.t.Helper()
	routes := make([]string, b.options.Servers)
	for j := range routes {
		routes[j] = "127.0.0.1"
	}
	operator, system := b.keys.Operator()
	dir := filepath.Join(b.dir, fmt.Sprintf("n%d", i))
	conf := bus.ServerConfig{
		Cluster: "bustest", Routes: routes, Fsync: b.options.Fsync, MaxFileStore: b.options.MaxFileStore,
		DataDir: dir, TLSDir: b.dir, OperatorJWT: operator, SystemAccount: system, Preload: b.keys.Preload(),
	}
	file := filepath.Join(b.dir, fmt.Sprintf("n%d.conf", i))
	if err := os.WriteFile(file, []byte(conf.Render()), 0o600); err != nil {
		b.t.Fatalf("writing configuration: %v", err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		b.t.Fatalf("reading configuration: %v", err)
	}
	o.ServerName = fmt.Sprintf("n%d", i)
	o.Host, o.Port, o.HTTPHost, o.HTTPPort = "127.0.0.1", b.ports[i], "", 0
	o.NoSigs, o.NoLog = true, true
	if b.options.Servers > 1 {
		o.Cluster.Host, o.Cluster.Port = "127.0.0.1", b.routes[i]
		o.Routes = nil
		for _, p := range b.routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "tls", Host: fmt.Sprintf("127.0.0.1:%d", p)})
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		b.t.Fatalf("server %d: %v", i, err)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		b.t.Fatalf("server %d does not take connections", i)
	}
	b.mu.Lock()
	b.servers[i] = s
	b.mu.Unlock()
}

// waitReady until JetStream answers, which in a cluster needs a leader.
func (b *Broker) waitReady() {
	b.t.Helper()
	nc, js := b.Admin()
	defer nc.Close()
	deadline := time.Now().Add(startTimeout)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := js.AccountInfo(ctx)
		cancel()
		if err == nil && b.allJoined() {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("JetStream does not answer: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// allJoined says that the leader of the cluster sees all servers.
func (b *Broker) allJoined() bool {
	if b.options.Servers == 1 {
		return true
	}
	for i := range b.servers {
		if s := b.Server(i); s != nil && s.JetStreamIsLeader() {
			return len(s.JetStreamClusterPeers()) == b.options.Servers
		}
	}
	return false
}

func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("finding a port: %v", err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
