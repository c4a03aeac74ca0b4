package loopback

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
)

// Namespace of everything that is made.
const Namespace = "bench"

// host that servers listen on.
const host = "127.0.0.1"

// lifetime of users: longer than any run.
const lifetime = 24 * time.Hour

// Broker is one server or three: their configuration and, once they run, the operator's session.
type Broker struct {
	dir      string
	keys     *bus.Keys
	ca       []byte
	options  Options
	url      string
	registry *bus.Registry
	conn     *nats.Conn
	js       jetstream.JetStream
}

// Options of the servers.
type Options struct {
	// Servers is 1 or 3; 0 means 1.
	Servers int
	// Fsync is durability: Fsync; without it the disk is flushed every two minutes, as durability: Replicated does on several servers.
	Fsync bool
	// TrimInterval of the operator's trimmer; zero means that nobody trims: a measurement keeps what it stores until it purges it.
	TrimInterval time.Duration
}

// New writes keys, certificates and the configuration of servers into dir.
func New(dir string, o Options) (*Broker, error) {
	o.Servers = max(1, o.Servers)
	keys, err := bus.NewKeys()
	if err != nil {
		return nil, err
	}
	data, _, err := bus.RenewCertificates(nil, []string{host}, time.Now())
	if err != nil {
		return nil, err
	}
	certificates, err := bus.ReadCertificates(data)
	if err != nil {
		return nil, err
	}
	b := &Broker{dir: dir, keys: keys, ca: certificates.Bundle, options: o}
	for name, content := range map[string][]byte{"ca.crt": certificates.Bundle, "tls.crt": certificates.Cert, "tls.key": certificates.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	operator, system := keys.Operator()
	for i := range o.Servers {
		text := bus.ServerConfig{
			Cluster: Namespace, Routes: slices.Repeat([]string{host}, o.Servers), Fsync: o.Fsync, MaxFileStore: 32 << 30,
			DataDir: b.DataDir(i), TLSDir: dir,
			OperatorJWT: operator, SystemAccount: system, Preload: keys.Preload(),
		}.Render()
		if err := os.WriteFile(b.conf(i), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Broker) conf(i int) string { return filepath.Join(b.dir, fmt.Sprintf("nats-%d.conf", i)) }

// DataDir is where server i keeps its files.
func (b *Broker) DataDir(i int) string { return filepath.Join(b.dir, fmt.Sprintf("data-%d", i)) }

// Arguments of nats-server i: the configuration file, and the addresses that replace those in it. routes are the ports at which the servers
// reach each other; a single one has none.
func (b *Broker) Arguments(i int, name, port string, routes ...string) []string {
	args := []string{"-c", b.conf(i), "-n", name, "-a", host, "-p", port, "-m", "0"}
	if len(routes) > 1 {
		urls := make([]string, len(routes))
		for j, port := range routes {
			urls[j] = "tls://" + net.JoinHostPort(host, port)
		}
		args = append(args, "-cluster", urls[i], "-routes", strings.Join(urls, ","))
	}
	return args
}

// CA is the PEM bundle that the server's certificate chains to.
func (b *Broker) CA() []byte { return b.ca }

// Client is what a connector's configuration says of the broker.
func (b *Broker) Client() contract.Broker {
	return contract.Broker{URLs: strings.Split(b.url, ","), CA: string(b.ca), Replicas: b.options.Servers, Fsync: b.options.Fsync}
}

// Open the operator's session on the servers at url, separated by commas. It returns when the session works.
func (b *Broker) Open(ctx context.Context, url string) error {
	b.url = url
	params, err := bus.ManagedParams(b.keys, b.Client(), nil)
	if err != nil {
		return err
	}
	if params.TrimInterval = b.options.TrimInterval; params.TrimInterval == 0 {
		params.TrimInterval = lifetime
	}
	b.registry = bus.NewRegistry(ctx, logr.Discard())
	if err := b.registry.Set(b.name(), params); err != nil {
		return err
	}
	for {
		if _, err = b.registry.Session(b.name()); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-b.registry.Brokers():
		}
	}
	creds, err := b.user(b.keys.Bus, "bench")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b.ca)
	if b.conn, err = nats.Connect(url, nats.UserCredentialBytes(creds), nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return err
	}
	b.js, err = jetstream.New(b.conn)
	return err
}

// JetStream in account BUS, with every right.
func (b *Broker) JetStream() jetstream.JetStream { return b.js }

// Conn is the connection of JetStream.
func (b *Broker) Conn() *nats.Conn { return b.conn }

func (b *Broker) name() types.NamespacedName {
	return types.NamespacedName{Namespace: Namespace, Name: "loopback"}
}

// Close the session.
func (b *Broker) Close() {
	if b.registry != nil {
		b.registry.Close()
	}
	if b.conn != nil {
		b.conn.Close()
	}
}

// Credentials are the data of the Secret that makes the server an external Broker.
func (b *Broker) Credentials() (map[string][]byte, error) {
	data := map[string][]byte{
		bus.CredentialsEdge: []byte(b.keys.Edge.PublicKey),
		bus.CredentialsCA:   b.ca,
	}
	var err error
	if data[bus.CredentialsBus], err = b.user(b.keys.Bus, "operator"); err != nil {
		return nil, err
	}
	if data[bus.CredentialsSys], err = b.user(b.keys.Sys, "operator"); err != nil {
		return nil, err
	}
	if data[bus.CredentialsEdgeSeed], err = b.keys.Edge.Signing.Seed(); err != nil {
		return nil, err
	}
	data[bus.CredentialsOperator], err = b.keys.OperatorKey().Seed()
	return data, err
}

// user of an account, with every right in it.
func (b *Broker) user(a bus.Account, name string) ([]byte, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, err
	}
	claims := jwt.NewUserClaims(public)
	claims.Name, claims.IssuerAccount, claims.Expires = name, a.PublicKey, time.Now().Add(lifetime).Unix()
	encoded, err := claims.Encode(a.Signing)
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(encoded, seed)
}
