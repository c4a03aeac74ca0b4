package bus

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
)

// Ports of a managed server.
const (
	PortClient  = 4222
	PortCluster = 6222
	PortMonitor = 8222
)

// Limits of the servers' own configuration.
const (
	// statusBytes of memory that the status stream may take.
	statusBytes = 64 << 20
	// memoryStore of each server: the status stream, and room for the operator's short-lived consumers.
	memoryStore = 96 << 20
	// batchTimeout after which an atomic batch without its last message is given up: abandoned ones deny their neighbours a place.
	batchTimeout = 2 * time.Second
	// resolverInterval at which servers compare the claims that they hold.
	resolverInterval = 10 * time.Second
)

// ServerConfig is what the nats.conf of managed servers says. The same file serves all servers of a Broker; their names come
// from the command line.
type ServerConfig struct {
	// Cluster name; servers of two Brokers never join.
	Cluster string
	// Routes are the host names of all servers; one alone makes no cluster.
	Routes []string
	// Fsync before every acknowledgement.
	Fsync bool
	// MaxFileStore in bytes, below the size of the volume.
	MaxFileStore int64
	// DataDir is the volume, TLSDir holds tls.crt, tls.key and ca.crt.
	DataDir, TLSDir string
	// OperatorJWT, SystemAccount and Preload are of Keys.
	OperatorJWT, SystemAccount string
	Preload                    map[string]string
}

// Render writes nats.conf. It is a pure function: equal configurations give equal text.
func (c ServerConfig) Render() string { return c.static() + c.preload() }

// Static is the part of nats.conf that only a restart can change. Claims of accounts are not in it: the resolver takes them while it
// runs.
func (c ServerConfig) Static() string { return c.static() }

func (c ServerConfig) static() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	sync := `"2m"`
	if c.Fsync {
		sync = "always"
	}
	line("# Written by the MetIP operator; changes are overwritten.")
	line("host: 0.0.0.0")
	line("port: %d", PortClient)
	line("http: %q", fmt.Sprintf("0.0.0.0:%d", PortMonitor))
	line("max_payload: %d", contract.MaxMessageSize+contract.MaxHeaderSize)
	line("max_control_line: 1048576") // a user's JWT is one line, and grows with the Routes that end in a sink
	line("write_deadline: \"10s\"")
	line("ping_interval: \"10s\"")
	line("ping_max: 2")
	line("lame_duck_grace_period: \"2s\"")
	line("lame_duck_duration: \"30s\"")
	line("tls {")
	line("  cert_file: %q", c.TLSDir+"/tls.crt")
	line("  key_file: %q", c.TLSDir+"/tls.key")
	line("  ca_file: %q", c.TLSDir+"/ca.crt")
	line("  timeout: 5")
	line("}")
	line("jetstream {")
	line("  store_dir: %q", c.DataDir+"/js")
	line("  max_file_store: %d", c.MaxFileStore)
	line("  max_memory_store: %d", memoryStore)
	line("  sync_interval: %s", sync)
	line("  limits { batch { timeout: %q } }", batchTimeout)
	line("}")
	if len(c.Routes) > 1 {
		c.cluster(line)
	}
	line("operator: %s", strconv.Quote(c.OperatorJWT))
	line("system_account: %s", c.SystemAccount)
	line("resolver {")
	line("  type: full")
	line("  dir: %q", c.DataDir+"/jwt")
	line("  allow_delete: true")
	line("  interval: %q", resolverInterval)
	line("  timeout: \"2s\"")
	line("}")
	return b.String()
}

// cluster names every peer and lets none be discovered: discovered ones are addresses, which no certificate carries.
func (c ServerConfig) cluster(line func(string, ...any)) {
	line("cluster {")
	line("  name: %q", c.Cluster)
	line("  host: 0.0.0.0")
	line("  port: %d", PortCluster)
	line("  no_advertise: true")
	line("  tls {")
	line("    cert_file: %q", c.TLSDir+"/tls.crt")
	line("    key_file: %q", c.TLSDir+"/tls.key")
	line("    ca_file: %q", c.TLSDir+"/ca.crt")
	line("    verify: true")
	line("    timeout: 5")
	line("  }")
	line("  routes [")
	for _, host := range c.Routes {
		line("    %q", fmt.Sprintf("tls://%s:%d", host, PortCluster))
	}
	line("  ]")
	line("}")
}

func (c ServerConfig) preload() string {
	var b strings.Builder
	b.WriteString("resolver_preload {\n")
	for _, account := range slices.Sorted(maps.Keys(c.Preload)) {
		fmt.Fprintf(&b, "  %s: %s\n", account, strconv.Quote(c.Preload[account]))
	}
	b.WriteString("}\n")
	return b.String()
}
