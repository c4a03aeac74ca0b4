package busadmin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/test/cluster"
)

// What the operator keeps of a managed Broker; its Service for clients has its own name.
const (
	keyBusSeed    = "bus.signing.seed"
	keyBusClaims  = "bus.jwt"
	keyCA         = "ca.crt"
	clientPort    = 4222
	userLife      = 2 * time.Hour
	connectWithin = 10 * time.Second
)

// Admin is a user of a Broker's account BUS who may do everything there.
type Admin struct {
	JetStream jetstream.JetStream

	connection *nats.Conn
}

// DeadLetter of a destination.
type DeadLetter struct {
	Route, Destination, Reason, Error string
	// ID is the message's ce-id: what its source called it.
	ID       string
	Time     time.Time
	Sequence uint64
	Headers  nats.Header
	Body     []byte
}

// Connect to a managed Broker.
func Connect(ctx context.Context, c *cluster.Cluster, broker client.ObjectKey) (*Admin, error) {
	seed, account, authorities, err := secrets(ctx, c, broker)
	if err != nil {
		return nil, err
	}
	token, key, err := user(seed, account)
	if err != nil {
		return nil, err
	}
	a := &Admin{}
	host := broker.Name + "." + broker.Namespace + ".svc"
	a.connection, err = nats.Connect(fmt.Sprintf("tls://%s:%d", host, clientPort),
		nats.Name("metip-test"), nats.UserJWTAndSeed(token, key), nats.SetCustomDialer(dialer{c.Dialer(broker.Namespace, broker.Name, clientPort)}),
		nats.Secure(&tls.Config{RootCAs: authorities, ServerName: host, MinVersion: tls.VersionTLS12}),
		nats.Timeout(connectWithin), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.IgnoreAuthErrorAbort())
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", broker, err)
	}
	a.JetStream, err = jetstream.New(a.connection)
	return a, err
}

// Close the connection.
func (a *Admin) Close() {
	a.connection.Close()
}

// Streams by name.
func (a *Admin) Streams(ctx context.Context) ([]string, error) {
	var names []string
	lister := a.JetStream.StreamNames(ctx)
	for name := range lister.Name() {
		names = append(names, name)
	}
	return names, lister.Err()
}

// Consumers of a stream.
func (a *Admin) Consumers(ctx context.Context, stream string) ([]*jetstream.ConsumerInfo, error) {
	s, err := a.JetStream.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	var infos []*jetstream.ConsumerInfo
	lister := s.ListConsumers(ctx)
	for info := range lister.Info() {
		infos = append(infos, info)
	}
	return infos, lister.Err()
}

// Owed is how many messages a destination has not settled yet.
func (a *Admin) Owed(ctx context.Context, namespace, integration, route, destination string) (int, error) {
	consumer, err := a.JetStream.Consumer(ctx, contract.EventStream(namespace, integration), contract.DurableName(namespace, route, destination))
	if err != nil {
		return 0, err
	}
	info := consumer.CachedInfo()
	return int(info.NumPending) + info.NumAckPending, nil
}

// DeadLetters of an Integration, in order, from a sequence on; 0 means all.
func (a *Admin) DeadLetters(ctx context.Context, namespace, integration string, from uint64) ([]DeadLetter, error) {
	stream, err := a.JetStream.Stream(ctx, contract.DeadStream(namespace, integration))
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	var letters []DeadLetter
	for sequence := max(from, state.FirstSeq); sequence <= state.LastSeq && state.Msgs > 0; sequence++ {
		message, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		letters = append(letters, DeadLetter{
			Route: message.Header.Get(contract.HeaderDeadRoute), Destination: message.Header.Get(contract.HeaderDeadDestination),
			Reason: message.Header.Get(contract.HeaderDeadReason), Error: message.Header.Get(contract.HeaderDeadError),
			ID: message.Header.Get(contract.HeaderID), Time: message.Time, Sequence: sequence, Headers: message.Header, Body: message.Data,
		})
	}
	return letters, nil
}

// secrets reads what the operator keeps of a Broker in its own namespace.
func secrets(ctx context.Context, c *cluster.Cluster, broker client.ObjectKey) (seed []byte, account string, authorities *x509.CertPool, err error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: cluster.OperatorNamespace, Name: "metip-broker." + broker.Namespace + "." + broker.Name}
	if err := c.Client.Get(ctx, key, secret); err != nil {
		return nil, "", nil, err
	}
	claims, err := jwt.DecodeAccountClaims(string(secret.Data[keyBusClaims]))
	if err != nil {
		return nil, "", nil, fmt.Errorf("secret %s: %w", key, err)
	}
	authorities = x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(secret.Data[keyCA]) {
		return nil, "", nil, fmt.Errorf("secret %s has no authority in %s", key, keyCA)
	}
	return secret.Data[keyBusSeed], claims.Subject, authorities, nil
}

// user of the account, with every right there.
func user(seed []byte, account string) (token, key string, err error) {
	signer, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", "", err
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", "", err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return "", "", err
	}
	secret, err := pair.Seed()
	if err != nil {
		return "", "", err
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = "metip-test"
	claims.Expires = time.Now().Add(userLife).Unix()
	if signing, err := signer.PublicKey(); err != nil {
		return "", "", err
	} else if signing != account {
		claims.IssuerAccount = account
	}
	token, err = claims.Encode(signer)
	return token, string(secret), err
}

// dialer is a nats.CustomDialer.
type dialer struct{ *cluster.Dialer }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	// nats.go gives its dialer no context
	ctx, cancel := context.WithTimeout(context.Background(), connectWithin)
	defer cancel()
	return d.Dialer.Dial(ctx, network, address)
}

// SkipTLSHandshake is false: nats.go secures the connection itself.
func (dialer) SkipTLSHandshake() bool { return false }
