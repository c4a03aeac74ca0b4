// Package kafkatest runs a broker that speaks Kafka's protocol for tests: franz-go's kfake, in a process of its own that can be killed, with TLS by a CA of its
// own that asks every client for a certificate, users, and what is confirmed on disk. A real Kafka is not among Debian's packages.
package kafkatest

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/engine/enginetest"
)

// Administrator of the broker, and the password.
const (
	Administrator = "administrator"
	Password      = "correct-horse-battery"
)

const (
	// envConfig holds the file that a child which is to be a broker is configured by.
	envConfig = "METIP_TEST_KAFKA"
	mechanism = "SCRAM-SHA-512"
)

// config of a child.
type config struct {
	Port           int
	Cert, Key, CA  string // PEM
	Dir            string
	User, Password string
}

// Main has to be called first by the TestMain of a package that starts brokers: in a child that is to be a broker it is one, and never returns.
func Main() {
	file := os.Getenv(envConfig)
	if file == "" {
		return
	}
	if err := serve(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func serve(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(c.Cert), []byte(c.Key))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(c.CA))
	_, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(c.Port), kfake.DataDir(c.Dir), kfake.SyncWrites(), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}),
		kfake.Superuser(mechanism, Administrator, Password), kfake.Superuser(mechanism, c.User, c.Password),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": strconv.Itoa(16 << 20), "group.initial.rebalance.delay.ms": "0"}))
	return err
}

// Server is a broker that runs.
type Server struct {
	// Host and Port of the broker.
	Host string
	Port int
	// CA of its certificate, and of those that clients must show.
	CA *certs.Authority
	// Password of User, which the next start asks for.
	User, Password string

	dir     string
	cert    string
	key     string
	process *enginetest.Process
}

// Start a broker for a test.
func Start(t *testing.T, user, password string) *Server {
	t.Helper()
	ca, err := certs.New("kafka CA")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Host: "127.0.0.1", CA: ca, User: user, Password: password, dir: t.TempDir()}
	if s.cert, s.key, err = ca.Issue(time.Now().Add(time.Hour), s.Host); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Port = listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	s.Boot(t)
	return s
}

// Address of the broker.
func (s *Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Boot the broker, again after Kill: at the same address, with what is on disk.
func (s *Server) Boot(t *testing.T) {
	t.Helper()
	raw, err := json.Marshal(config{Port: s.Port, Cert: s.cert, Key: s.key, CA: s.CA.PEM, Dir: filepath.Join(s.dir, "data"), User: s.User, Password: s.Password})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "config.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.process = enginetest.Spawn(t, "kafka", envConfig+"="+file)
	client := s.Client(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if err = client.Ping(ctx); err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the broker does not answer: %v", err)
		}
	}
}

// SetPassword of the user: who is logged in stays so.
func (s *Server) SetPassword(t *testing.T, password string) {
	t.Helper()
	client := s.Client(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const iterations = 4096
	salt := []byte("salt of a test")
	salted, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
	if err != nil {
		t.Fatal(err)
	}
	request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	changed := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	changed.Name, changed.Mechanism, changed.Iterations, changed.Salt, changed.SaltedPassword = s.User, 2, iterations, salt, salted
	request.Upsertions = append(request.Upsertions, changed)
	answer, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(answer.Results[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Password = password
}

// Kill the broker as kill -9 does.
func (s *Server) Kill() { s.process.Kill() }

// Freeze the broker: it keeps its connections and answers nothing.
func (s *Server) Freeze() { s.process.Freeze() }

// Thaw a frozen broker.
func (s *Server) Thaw() { s.process.Thaw() }

// Client of the administrator.
func (s *Server) Client(t *testing.T, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	pair, err := s.CA.Pair(time.Now().Add(time.Hour), Administrator)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(s.Address()), kgo.SASL(scram.Auth{User: Administrator, Pass: Password}.AsSha512Mechanism()), kgo.RequestRetries(3),
		kgo.DialTLSConfig(&tls.Config{RootCAs: s.CA.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}),
		kgo.BrokerMaxReadBytes(64 << 20), kgo.BrokerMaxWriteBytes(64 << 20), kgo.ProducerBatchMaxBytes(12 << 20),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Create a topic.
func (s *Server) Create(t *testing.T, topic string, partitions int32) {
	t.Helper()
	client := s.Client(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request := kmsg.NewPtrCreateTopicsRequest()
	wanted := kmsg.NewCreateTopicsRequestTopic()
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = topic, partitions, 1
	request.Topics = append(request.Topics, wanted)
	answer, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatal(err)
	}
}

// Delete a topic.
func (s *Server) Delete(t *testing.T, topic string) {
	t.Helper()
	client := s.Client(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request := kmsg.NewPtrDeleteTopicsRequest()
	named := kmsg.NewDeleteTopicsRequestTopic()
	named.Topic = kmsg.StringPtr(topic)
	request.TopicNames, request.Topics = []string{topic}, append(request.Topics, named)
	answer, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ends of a topic's partitions.
func (s *Server) ends(ctx context.Context, t *testing.T, client *kgo.Client, topic string, partitions int32) map[int32]int64 {
	t.Helper()
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	wanted := kmsg.NewListOffsetsRequestTopic()
	wanted.Topic = topic
	for p := range partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = p, -1
		wanted.Partitions = append(wanted.Partitions, partition)
	}
	request.Topics = append(request.Topics, wanted)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	for _, p := range answer.Topics[0].Partitions {
		out[p.Partition] = max(p.Offset, 0)
	}
	return out
}

// Left counts the records of a topic that a group has not committed.
func (s *Server) Left(t *testing.T, group, topic string, partitions int32) int {
	t.Helper()
	client := s.Client(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = group
	wanted := kmsg.NewOffsetFetchRequestTopic()
	wanted.Topic = topic
	of := kmsg.NewOffsetFetchRequestGroup()
	of.Group = group
	ofTopic := kmsg.NewOffsetFetchRequestGroupTopic()
	ofTopic.Topic = topic
	for p := range partitions {
		wanted.Partitions, ofTopic.Partitions = append(wanted.Partitions, p), append(ofTopic.Partitions, p)
	}
	request.Topics = append(request.Topics, wanted)
	of.Topics = append(of.Topics, ofTopic)
	request.Groups = append(request.Groups, of)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	committed := map[int32]int64{}
	for _, at := range answer.Topics {
		for _, p := range at.Partitions {
			committed[p.Partition] = p.Offset
		}
	}
	for _, g := range answer.Groups {
		for _, at := range g.Topics {
			for _, p := range at.Partitions {
				committed[p.Partition] = p.Offset
			}
		}
	}
	left := int64(0)
	for p, end := range s.ends(ctx, t, client, topic, partitions) {
		left += end - max(committed[p], 0)
	}
	return int(left)
}

// Records of a topic, in the order of their partitions.
func (s *Server) Records(t *testing.T, topic string, partitions int32) (out []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	from := map[int32]kgo.Offset{}
	for p := range partitions {
		from[p] = kgo.NewOffset().AtStart()
	}
	client := s.Client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	defer client.Close()
	want := int64(0)
	for _, end := range s.ends(ctx, t, client, topic, partitions) {
		want += end
	}
	for int64(len(out)) < want {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("with %d of %d records of %s: %v", len(out), want, topic, err)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}
