package bus

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// The keys of a managed Broker's Secret. Seeds of the accounts themselves are not kept: what they could sign, the signing
// keys and the operator's key sign.
const (
	dataOperatorSeed = "operator.seed"
	dataOperatorJWT  = "operator.jwt"
	dataSysJWT       = "sys.jwt"
	dataSysSeed      = "sys.signing.seed"
	dataBusJWT       = "bus.jwt"
	dataBusSeed      = "bus.signing.seed"
	dataEdgeJWT      = "edge.jwt"
	dataEdgeSeed     = "edge.signing.seed"
)

// Keys of a managed Broker: an operator, the accounts SYS, BUS and EDGE with one signing key each, and their claims. Folders of
// stored messages are named after account BUS, so that the keys are worth as much as the messages.
type Keys struct {
	operator              nkeys.KeyPair
	operatorJWT           string
	Sys, Bus, Edge        Account
	sysJWT, busJWT        *jwt.AccountClaims
	edgeJWT               *jwt.AccountClaims
	encodedSys, encodeBus string
	encodedEdge           string
}

// Account that users are issued in.
type Account struct {
	// PublicKey of the account.
	PublicKey string
	// Signing key of the account; it may be the account's own.
	Signing nkeys.KeyPair
}

// NewKeys makes the keys of a new Broker.
func NewKeys() (*Keys, error) {
	operator, err := nkeys.CreateOperator()
	if err != nil {
		return nil, err
	}
	k := &Keys{operator: operator}
	for _, a := range []*Account{&k.Sys, &k.Bus, &k.Edge} {
		if *a, err = newAccount(); err != nil {
			return nil, err
		}
	}
	claims, err := operatorClaims(operator, k.Sys.PublicKey)
	if err != nil {
		return nil, err
	}
	if k.operatorJWT, err = claims.Encode(operator); err != nil {
		return nil, err
	}
	return k, k.refresh()
}

// ParseKeys reads what Data wrote. Claims that an older version of the operator wrote are renewed; changed says so, and the caller stores
// Data again.
func ParseKeys(data map[string][]byte) (keys *Keys, changed bool, err error) {
	k := &Keys{operatorJWT: string(data[dataOperatorJWT])}
	if k.operator, err = parseSeed(data, dataOperatorSeed, nkeys.IsValidPublicOperatorKey); err != nil {
		return nil, false, err
	}
	for _, a := range []struct {
		account      *Account
		claims       **jwt.AccountClaims
		encoded      *string
		jwtKey, seed string
	}{
		{&k.Sys, &k.sysJWT, &k.encodedSys, dataSysJWT, dataSysSeed},
		{&k.Bus, &k.busJWT, &k.encodeBus, dataBusJWT, dataBusSeed},
		{&k.Edge, &k.edgeJWT, &k.encodedEdge, dataEdgeJWT, dataEdgeSeed},
	} {
		if a.account.Signing, err = parseSeed(data, a.seed, nkeys.IsValidPublicAccountKey); err != nil {
			return nil, false, err
		}
		*a.encoded = string(data[a.jwtKey])
		if *a.claims, err = jwt.DecodeAccountClaims(*a.encoded); err != nil {
			return nil, false, fmt.Errorf("key %s: %w", a.jwtKey, err)
		}
		a.account.PublicKey = (*a.claims).Subject
	}
	before := [3]string{k.encodedSys, k.encodeBus, k.encodedEdge}
	if err := k.refresh(); err != nil {
		return nil, false, err
	}
	return k, before != [3]string{k.encodedSys, k.encodeBus, k.encodedEdge}, nil
}

// Data for a Secret.
func (k *Keys) Data() (map[string][]byte, error) {
	data := map[string][]byte{
		dataOperatorJWT: []byte(k.operatorJWT),
		dataSysJWT:      []byte(k.encodedSys),
		dataBusJWT:      []byte(k.encodeBus),
		dataEdgeJWT:     []byte(k.encodedEdge),
	}
	for key, pair := range map[string]nkeys.KeyPair{
		dataOperatorSeed: k.operator,
		dataSysSeed:      k.Sys.Signing,
		dataBusSeed:      k.Bus.Signing,
		dataEdgeSeed:     k.Edge.Signing,
	} {
		seed, err := pair.Seed()
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", key, err)
		}
		data[key] = seed
	}
	return data, nil
}

// SetEdgeClaims replaces the claims of account EDGE: revocations were added.
func (k *Keys) SetEdgeClaims(encoded string) error {
	claims, err := jwt.DecodeAccountClaims(encoded)
	if err != nil {
		return err
	}
	if claims.Subject != k.Edge.PublicKey {
		return errors.New("the claims are those of another account than EDGE")
	}
	k.edgeJWT, k.encodedEdge = claims, encoded
	return nil
}

// Operator is the operator's JWT, and the public key of its system account.
func (k *Keys) Operator() (encoded, systemAccount string) { return k.operatorJWT, k.Sys.PublicKey }

// Preload is what each server must know from the start: the accounts' public keys and claims.
func (k *Keys) Preload() map[string]string {
	return map[string]string{
		k.Sys.PublicKey:  k.encodedSys,
		k.Bus.PublicKey:  k.encodeBus,
		k.Edge.PublicKey: k.encodedEdge,
	}
}

// OperatorKey signs the claims of accounts.
func (k *Keys) OperatorKey() nkeys.KeyPair { return k.operator }

// EdgeClaims are the claims of account EDGE, encoded.
func (k *Keys) EdgeClaims() string { return k.encodedEdge }

// BusClaims are the claims of account BUS, encoded.
func (k *Keys) BusClaims() string { return k.encodeBus }

// refresh signs the claims of the accounts again where they differ from what this version wants.
func (k *Keys) refresh() error {
	sys, err := sysClaims(k.Sys)
	if err != nil {
		return err
	}
	bus, err := busClaims(k.Bus)
	if err != nil {
		return err
	}
	edge, err := edgeClaims(k.Edge, k.Bus.PublicKey)
	if err != nil {
		return err
	}
	for _, a := range []struct {
		want, have *jwt.AccountClaims
		claims     **jwt.AccountClaims
		encoded    *string
	}{
		{sys, k.sysJWT, &k.sysJWT, &k.encodedSys},
		{bus, k.busJWT, &k.busJWT, &k.encodeBus},
		{edge, k.edgeJWT, &k.edgeJWT, &k.encodedEdge},
	} {
		if a.have != nil {
			a.want.Revocations = a.have.Revocations
			if sameClaims(a.want, a.have) {
				continue
			}
		}
		encoded, err := a.want.Encode(k.operator)
		if err != nil {
			return err
		}
		*a.claims, *a.encoded = a.want, encoded
	}
	return nil
}

func newAccount() (Account, error) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		return Account{}, err
	}
	public, err := account.PublicKey()
	if err != nil {
		return Account{}, err
	}
	signing, err := nkeys.CreateAccount()
	return Account{PublicKey: public, Signing: signing}, err
}

// ParseSigningSeed reads the signing seed of an account.
func ParseSigningSeed(seed []byte) (nkeys.KeyPair, error) {
	return checkSeed(seed, nkeys.IsValidPublicAccountKey)
}

// ParseOperatorSeed reads the seed of an operator.
func ParseOperatorSeed(seed []byte) (nkeys.KeyPair, error) {
	return checkSeed(seed, nkeys.IsValidPublicOperatorKey)
}

func parseSeed(data map[string][]byte, key string, valid func(string) bool) (nkeys.KeyPair, error) {
	pair, err := checkSeed(data[key], valid)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", key, err)
	}
	return pair, nil
}

// checkSeed never repeats the seed in its error. A file's last line break is not part of the seed.
func checkSeed(seed []byte, valid func(string) bool) (nkeys.KeyPair, error) {
	pair, err := nkeys.FromSeed(slices.Clone(bytes.TrimSpace(seed)))
	if err != nil {
		return nil, errors.New("is missing or not a seed")
	}
	public, err := pair.PublicKey()
	if err != nil || !valid(public) {
		return nil, errors.New("is the seed of another kind of key")
	}
	return pair, nil
}

// issueUser makes a user with a new key. An unlimited user has no permissions in its claims, which means all of them.
func issueUser(a Account, name string, allow *jwt.Permissions, lifetime time.Duration) (User, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return User{}, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return User{}, err
	}
	seed, err := pair.Seed()
	if err != nil {
		return User{}, err
	}
	expires := time.Now().Add(lifetime).Truncate(time.Second)
	encoded, err := encodeUser(a, public, name, allow, expires)
	if err != nil {
		return User{}, err
	}
	creds, err := jwt.FormatUserConfig(encoded, seed)
	if err != nil {
		return User{}, err
	}
	return User{PublicKey: public, Creds: creds, Expires: expires}, nil
}

func encodeUser(a Account, public, name string, allow *jwt.Permissions, expires time.Time) (string, error) {
	claims := jwt.NewUserClaims(public)
	claims.Name = name
	claims.Expires = expires.Unix()
	if signer, err := a.Signing.PublicKey(); err != nil {
		return "", err
	} else if signer != a.PublicKey {
		claims.IssuerAccount = a.PublicKey
	}
	if allow != nil {
		claims.Permissions = *allow
	}
	return claims.Encode(a.Signing)
}

// IssueAdmin makes a user of an account with every right there and returns its credentials (NATS .creds format).
func IssueAdmin(a Account, name string, lifetime time.Duration) ([]byte, error) {
	user, err := issueUser(a, name, nil, lifetime)
	return user.Creds, err
}
