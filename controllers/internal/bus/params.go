package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/metip/metip/connectors/contract"
)

// The keys of an external Broker's Secret.
const (
	CredentialsBus      = "bus.creds"
	CredentialsEdge     = "edge.account"
	CredentialsEdgeSeed = "edge.seed"
	CredentialsSys      = "sys.creds"
	CredentialsOperator = "operator.seed"
	CredentialsCA       = "ca.crt"
)

// MaxUserLifetime of a connector's user. Revocations older than that are forgotten.
const MaxUserLifetime = 31 * 24 * time.Hour

// operatorUserLifetime of the operator's own users, which are issued anew at each connect.
const operatorUserLifetime = 7 * 24 * time.Hour

// Params is how the operator reaches a broker and what it may do there.
type Params struct {
	// Client is what connectors are told; the operator uses the same URLs.
	Client contract.Broker
	// Bus signs in to account BUS with every right.
	Bus Login
	// Sys signs in to the system account; without it nothing can be revoked.
	Sys *Login
	// Edge is the account that connectors join.
	Edge Account
	// Operator signs the claims of accounts; without it nothing can be revoked.
	Operator nkeys.KeyPair
	// Accounts are claims that the servers must hold, encoded; those of EDGE with their revocations. None, when the servers are the
	// place where the claims are kept.
	Accounts []string
	// StoreEdgeClaims keeps claims of EDGE, before the servers are told of them. nil, when the servers keep them.
	StoreEdgeClaims func(ctx context.Context, encoded string) error
	// TrimInterval between two looks at each stream; 15 s when zero.
	TrimInterval time.Duration
}

// Login answers a server's challenge.
type Login struct {
	jwt  func() (string, error)
	sign func(nonce []byte) ([]byte, error)
	id   string
}

// ErrCredentials is wrapped by what ExternalParams finds missing or malformed.
var ErrCredentials = errors.New("the credentials cannot be used")

// ManagedParams for a Broker whose keys the operator holds.
func ManagedParams(keys *Keys, client contract.Broker, store func(ctx context.Context, encoded string) error) (Params, error) {
	bus, err := issuingLogin(keys.Bus, "metip-operator")
	if err != nil {
		return Params{}, err
	}
	sys, err := issuingLogin(keys.Sys, "metip-operator")
	if err != nil {
		return Params{}, err
	}
	return Params{
		Client: client, Bus: bus, Sys: &sys, Edge: keys.Edge, Operator: keys.OperatorKey(),
		Accounts: []string{keys.BusClaims(), keys.EdgeClaims()}, StoreEdgeClaims: store,
	}, nil
}

// ExternalParams for a Broker that somebody else runs, from the data of its Secret. The errors name the key and never its value.
func ExternalParams(data map[string][]byte, client contract.Broker) (Params, error) {
	p := Params{Client: client}
	p.Client.CA = string(data[CredentialsCA])
	for _, key := range []string{CredentialsBus, CredentialsEdge, CredentialsEdgeSeed} {
		if len(data[key]) == 0 {
			return Params{}, fmt.Errorf("%w: key %s is missing", ErrCredentials, key)
		}
	}
	var err error
	if p.Bus, err = credsLogin(data[CredentialsBus]); err != nil {
		return Params{}, fmt.Errorf("%w: key %s holds no JWT and seed in the .creds format", ErrCredentials, CredentialsBus)
	}
	p.Edge.PublicKey = string(bytes.TrimSpace(data[CredentialsEdge]))
	if !nkeys.IsValidPublicAccountKey(p.Edge.PublicKey) {
		return Params{}, fmt.Errorf("%w: key %s is not the public key of an account", ErrCredentials, CredentialsEdge)
	}
	if p.Edge.Signing, err = ParseSigningSeed(data[CredentialsEdgeSeed]); err != nil {
		return Params{}, fmt.Errorf("%w: key %s %w", ErrCredentials, CredentialsEdgeSeed, err)
	}
	if len(data[CredentialsSys]) > 0 {
		sys, err := credsLogin(data[CredentialsSys])
		if err != nil {
			return Params{}, fmt.Errorf("%w: key %s holds no JWT and seed in the .creds format", ErrCredentials, CredentialsSys)
		}
		p.Sys = &sys
	}
	if len(data[CredentialsOperator]) > 0 {
		if p.Operator, err = ParseOperatorSeed(data[CredentialsOperator]); err != nil {
			return Params{}, fmt.Errorf("%w: key %s %w", ErrCredentials, CredentialsOperator, err)
		}
	}
	return p, nil
}

// CanRevoke says whether users can be revoked before they expire.
func (p Params) CanRevoke() bool { return p.Sys != nil && p.Operator != nil }

// fingerprint changes when a session has to be made anew. Claims are not part of it, since the session writes them itself.
func (p Params) fingerprint() (string, error) {
	signing, err := p.Edge.Signing.PublicKey()
	if err != nil {
		return "", err
	}
	parts := []any{p.Client, p.Bus.id, p.Edge.PublicKey, signing, p.TrimInterval}
	if p.Sys != nil {
		parts = append(parts, p.Sys.id)
	}
	if p.Operator != nil {
		operator, err := p.Operator.PublicKey()
		if err != nil {
			return "", err
		}
		parts = append(parts, operator)
	}
	text, err := json.Marshal(parts)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// issuingLogin makes a new user of an account at each connect, so that none expires.
func issuingLogin(a Account, name string) (Login, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return Login{}, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return Login{}, err
	}
	return Login{
		jwt: func() (string, error) {
			return encodeUser(a, public, name, nil, time.Now().Add(operatorUserLifetime))
		},
		sign: pair.Sign,
		id:   a.PublicKey,
	}, nil
}

func credsLogin(creds []byte) (Login, error) {
	encoded, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		return Login{}, err
	}
	pair, err := jwt.ParseDecoratedUserNKey(creds)
	if err != nil {
		return Login{}, err
	}
	return Login{jwt: func() (string, error) { return encoded, nil }, sign: pair.Sign, id: encoded}, nil
}
