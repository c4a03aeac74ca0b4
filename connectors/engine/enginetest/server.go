package enginetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/metip/metip/connectors/contract"
)

// Options of a Server.
type Options struct {
	// Fsync flushes the disk before every acknowledgement, as durability Fsync does.
	Fsync bool
	// Dir of the server's files; empty for a temporary one.
	Dir string
	// Servers of a Cluster.
	Servers int
}

// Server is an embedded broker of one server.
type Server struct {
	t      testing.TB
	dir    string
	fsync  bool
	port   int
	server *server.Server
	// urls, ca and replicas are a Cluster's.
	urls     []string
	ca       string
	replicas int

	operator, system, bus, edge nkeys.KeyPair
	operatorJWT                 string
	accounts                    map[string]string
	admin                       *nats.Conn
}

// Start a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, dir: o.Dir, fsync: o.Fsync}
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	s.makeAccounts()
	s.port = freePort(t)
	s.Boot()
	t.Cleanup(s.Stop)
	return s
}

func must[T any](t testing.TB, what string) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func freePort(t testing.TB) int {
	l := must[net.Listener](t, "find a free port")(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *Server) makeAccounts() {
	key, text := must[nkeys.KeyPair](s.t, "make a key"), must[string](s.t, "encode a key")
	s.operator, s.system, s.bus, s.edge = key(nkeys.CreateOperator()), key(nkeys.CreateAccount()), key(nkeys.CreateAccount()), key(nkeys.CreateAccount())
	sysPub, busPub, edgePub := text(s.system.PublicKey()), text(s.bus.PublicKey()), text(s.edge.PublicKey())

	operator := jwt.NewOperatorClaims(text(s.operator.PublicKey()))
	operator.SystemAccount = sysPub
	s.operatorJWT = text(operator.Encode(s.operator))

	system, bus, edge := jwt.NewAccountClaims(sysPub), jwt.NewAccountClaims(busPub), jwt.NewAccountClaims(edgePub)
	system.Name, bus.Name, edge.Name = "SYS", "BUS", "EDGE"
	bus.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	for _, x := range contract.BusExports() {
		answer := jwt.ResponseType(jwt.ResponseTypeSingleton)
		if x.Streams {
			answer = jwt.ResponseTypeStream
		}
		bus.Exports.Add(&jwt.Export{Name: x.Subject, Subject: jwt.Subject(x.Subject), Type: jwt.Service, ResponseType: answer})
		edge.Imports.Add(&jwt.Import{Name: x.Subject, Subject: jwt.Subject(x.Subject), Account: busPub, Type: jwt.Service, LocalSubject: jwt.RenamingSubject(x.Local)})
	}
	s.accounts = map[string]string{
		sysPub: text(system.Encode(s.operator)), busPub: text(bus.Encode(s.operator)), edgePub: text(edge.Encode(s.operator)),
	}
}

// Boot starts the server, again after Kill: on the same port, with what is on disk.
func (s *Server) Boot() {
	s.t.Helper()
	var preload strings.Builder
	for key, claims := range s.accounts {
		fmt.Fprintf(&preload, "%s: %s\n", key, claims)
	}
	sync := "2m"
	if s.fsync {
		sync = "always"
	}
	conf := fmt.Sprintf("server_name: n0\nlisten: 127.0.0.1:%d\noperator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n%s}\nmax_payload: %d\nmax_control_line: 1048576\n"+
		"jetstream { store_dir: %q, sync_interval: %s }\n", s.port, s.operatorJWT, must[string](s.t, "key")(s.system.PublicKey()), preload.String(),
		contract.MaxMessageSize+contract.MaxHeaderSize, filepath.Join(s.dir, "js"), sync)
	file := filepath.Join(s.dir, "nats.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		s.t.Fatal(err)
	}
	options := must[*server.Options](s.t, "read the server's configuration")(server.ProcessConfigFile(file))
	options.NoSigs, options.NoLog = true, os.Getenv("METIP_TEST_SERVER_LOG") == ""
	s.server = must[*server.Server](s.t, "make the server")(server.NewServer(options))
	if !options.NoLog {
		s.server.ConfigureLogger()
	}
	s.server.Start()
	if !s.server.ReadyForConnections(20 * time.Second) {
		s.t.Fatal("the server does not start")
	}
}

// Kill the server; the files stay.
func (s *Server) Kill() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// Stop the server and the admin's connection.
func (s *Server) Stop() {
	if s.admin != nil {
		s.admin.Close()
		s.admin = nil
	}
	s.Kill()
}

// URL of the server, or of all servers, separated by commas.
func (s *Server) URL() string {
	if len(s.urls) > 0 {
		return strings.Join(s.urls, ",")
	}
	return fmt.Sprintf("nats://127.0.0.1:%d", s.port)
}

// Broker is how a connector's configuration says to reach it.
func (s *Server) Broker() contract.Broker {
	return contract.Broker{URLs: strings.Split(s.URL(), ","), CA: s.ca, Replicas: max(1, s.replicas), Fsync: s.fsync}
}

// Admin is JetStream in account BUS, with every right.
func (s *Server) Admin() jetstream.JetStream {
	s.t.Helper()
	return must[jetstream.JetStream](s.t, "JetStream")(jetstream.New(s.AdminConn()))
}

// AdminConn is a connection in account BUS, with every right.
func (s *Server) AdminConn() *nats.Conn {
	s.t.Helper()
	if s.admin == nil {
		user := must[nkeys.KeyPair](s.t, "make a key")(nkeys.CreateUser())
		claims := jwt.NewUserClaims(must[string](s.t, "key")(user.PublicKey()))
		token := must[string](s.t, "sign a user")(claims.Encode(s.bus))
		seed := must[[]byte](s.t, "seed")(user.Seed())
		s.admin = must[*nats.Conn](s.t, "connect")(nats.Connect(s.URL(), nats.UserJWTAndSeed(token, string(seed)), s.secure(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)))
	}
	return s.admin
}

// Creds of a user of account EDGE with these permissions and no more, as the operator writes them.
func (s *Server) Creds(name string, p contract.Permissions, lifetime time.Duration) []byte {
	s.t.Helper()
	user := must[nkeys.KeyPair](s.t, "make a key")(nkeys.CreateUser())
	claims := jwt.NewUserClaims(must[string](s.t, "key")(user.PublicKey()))
	claims.Name = name
	claims.Permissions.Pub.Allow, claims.Permissions.Sub.Allow = p.Publish, p.Subscribe
	if r := p.Responses; r != nil {
		claims.Permissions.Resp = &jwt.ResponsePermission{MaxMsgs: r.Max, Expires: r.TTL}
	}
	if lifetime > 0 {
		claims.Expires = time.Now().Add(lifetime).Unix()
	}
	token := must[string](s.t, "sign a user")(claims.Encode(s.edge))
	seed := must[[]byte](s.t, "seed")(user.Seed())
	return must[[]byte](s.t, "write credentials")(jwt.FormatUserConfig(token, seed))
}

// CredsFile writes credentials to a file of its own folder and returns its path.
func (s *Server) CredsFile(name string, p contract.Permissions, lifetime time.Duration) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "user.creds")
	if err := os.WriteFile(file, s.Creds(name, p, lifetime), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// Streams makes the streams of an Integration, and the status stream, by the contract.
func (s *Server) Streams(namespace, integration string, maxBytes int64) {
	s.t.Helper()
	js, ctx := s.Admin(), s.t.Context()
	for _, c := range []jetstream.StreamConfig{
		{
			Name: contract.EventStream(namespace, integration),
			Subjects: []string{
				contract.EventSubjects(namespace, integration), contract.ReplaySubjects(namespace, integration), contract.MarkSubject(namespace, integration),
			},
			MaxBytes: maxBytes, Discard: jetstream.DiscardNew, AllowAtomicPublish: true, Duplicates: 2 * time.Minute,
		},
		{
			Name: contract.DeadStream(namespace, integration), Subjects: []string{"dead." + namespace + "." + integration + ".>"},
			MaxBytes: maxBytes, Discard: jetstream.DiscardNew,
		},
		{
			Name: contract.StatusStream, Subjects: []string{contract.StatusSubjects}, MaxMsgsPerSubject: 1, MaxAge: 30 * time.Second,
			MaxMsgSize: contract.MaxReportSize, MaxBytes: 64 << 20, Storage: jetstream.MemoryStorage, DenyDelete: true, DenyPurge: true,
		},
	} {
		c.Replicas = max(1, s.replicas)
		must[jetstream.Stream](s.t, "make stream "+c.Name)(js.CreateOrUpdateStream(ctx, c))
	}
}

// Claims makes the stream of an Integration's claim checks, as the operator does.
func (s *Server) Claims(namespace, integration string, maxBytes int64) jetstream.Stream {
	s.t.Helper()
	return must[jetstream.Stream](s.t, "make the stream of claims")(s.Admin().CreateOrUpdateStream(s.t.Context(), jetstream.StreamConfig{
		Name: contract.ClaimStream(namespace, integration), Subjects: []string{contract.ClaimSubjects(namespace, integration)},
		MaxBytes: maxBytes, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, AllowDirect: true, DenyDelete: true,
		MaxMsgSize: contract.ClaimChunk + contract.MaxHeaderSize, Replicas: max(1, s.replicas),
	}))
}

// Table makes a lookup table of an Integration, by the contract.
func (s *Server) Table(namespace, integration, table string, maxBytes int64) jetstream.Stream {
	s.t.Helper()
	return must[jetstream.Stream](s.t, "make table "+table)(s.Admin().CreateOrUpdateStream(s.t.Context(), jetstream.StreamConfig{
		Name: contract.TableStream(namespace, integration, table), Subjects: []string{contract.TableSubjects(namespace, integration, table)},
		MaxBytes: maxBytes, MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowDirect: true, AllowMsgTTL: true, DenyDelete: true,
		Replicas: max(1, s.replicas),
	}))
}

// Durable makes the durable consumer of a destination that reads everything of the Integration.
func (s *Server) Durable(namespace, integration, route, destination string, ackWait time.Duration) jetstream.Consumer {
	s.t.Helper()
	return must[jetstream.Consumer](s.t, "make a durable consumer")(s.Admin().CreateOrUpdateConsumer(s.t.Context(), contract.EventStream(namespace, integration), jetstream.ConsumerConfig{
		Durable: contract.DurableName(namespace, route, destination), AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
		FilterSubjects: []string{
			contract.EventSubjects(namespace, integration), contract.ReplayFilter(namespace, integration, route, destination),
			contract.MarkSubject(namespace, integration),
		},
	}))
}

// Publish an event as a source of the namespace would have, and return its sequence in the stream.
func (s *Server) Publish(namespace, integration, connector, eventType, id string, body []byte) uint64 {
	s.t.Helper()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	m := &nats.Msg{
		Subject: contract.EventSubject(namespace, integration, connector, contract.Slot(id), eventType), Data: body,
		Header: nats.Header{
			"Nats-Msg-Id": {contract.MessageID("uid-"+connector, "", id)}, contract.HeaderSpecVersion: {contract.SpecVersion}, contract.HeaderID: {id},
			contract.HeaderType: {eventType}, contract.HeaderSource: {contract.SourceURI(namespace, connector)}, contract.HeaderTime: {now},
			contract.HeaderAccepted: {now}, contract.HeaderFormat: {"JSON"}, contract.HeaderContentType: {"application/json"},
		},
	}
	return must[*jetstream.PubAck](s.t, "publish an event")(s.Admin().PublishMsg(s.t.Context(), m)).Sequence
}

// readWithin is how long a message is asked for that does not come: its stream may have no leader, and a server that has just come back may
// not have everything yet.
const readWithin = 30 * time.Second

// Messages of a stream, from the first. The stream's own count says how many there are: what is not found at once is asked for again.
func (s *Server) Messages(stream string) []*jetstream.RawStreamMsg {
	s.t.Helper()
	st := must[jetstream.Stream](s.t, "find stream "+stream)(s.Admin().Stream(s.t.Context(), stream))
	found := map[uint64]*jetstream.RawStreamMsg{}
	for deadline := time.Now().Add(readWithin); ; {
		info := must[*jetstream.StreamInfo](s.t, "ask for the stream")(st.Info(s.t.Context()))
		var last error
		for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
			if found[seq] != nil {
				continue
			}
			m, err := st.GetMsg(s.t.Context(), seq)
			if err == nil {
				found[seq] = m
			} else if last = fmt.Errorf("message %d: %w", seq, err); !errors.Is(err, jetstream.ErrMsgNotFound) && time.Now().After(deadline) {
				s.t.Fatal(last)
			}
		}
		if uint64(len(found)) >= info.State.Msgs {
			break
		}
		if time.Now().After(deadline) {
			s.t.Logf("stream %s says that it has %d messages, and %d of them are found: %v", stream, info.State.Msgs, len(found), last)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	all := make([]*jetstream.RawStreamMsg, 0, len(found))
	for _, seq := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[seq])
	}
	return all
}

// Report that a pod gave last; ok is false when there is none.
func (s *Server) Report(namespace, connector, pod string) (r contract.Report, ok bool) {
	s.t.Helper()
	st, err := s.Admin().Stream(s.t.Context(), contract.StatusStream)
	if err != nil {
		return r, false
	}
	m, err := st.GetLastMsgForSubject(s.t.Context(), contract.StatusSubject(namespace, connector, pod))
	if err != nil || json.Unmarshal(m.Data, &r) != nil {
		return r, false
	}
	return r, true
}
