package bus

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/metip/metip/connectors/contract"
)

// externalData is a Secret as docs/broker.md makes it, with the line breaks that files end with.
func externalData(t *testing.T) map[string][]byte {
	t.Helper()
	seedOf := func(pair nkeys.KeyPair, err error) (nkeys.KeyPair, []byte) {
		if err != nil {
			t.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		return pair, append(seed, '\n')
	}
	account, accountSeed := seedOf(nkeys.CreateAccount())
	public, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	_, operatorSeed := seedOf(nkeys.CreateOperator())
	creds := func(name string) []byte {
		user, userSeed := seedOf(nkeys.CreateUser())
		userKey, err := user.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		token, err := encodeUser(Account{PublicKey: public, Signing: account}, userKey, name, nil, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.FormatUserConfig(token, userSeed)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	return map[string][]byte{
		CredentialsBus: creds("metip-operator"), CredentialsEdge: []byte(public + "\n"), CredentialsEdgeSeed: accountSeed,
		CredentialsSys: creds("sys"), CredentialsOperator: operatorSeed, CredentialsCA: []byte("a bundle"),
	}
}

func TestExternalParams(t *testing.T) {
	data := externalData(t)
	p, err := ExternalParams(data, contract.Broker{URLs: []string{"tls://nats:4222"}})
	if err != nil {
		t.Fatal(err)
	}
	if !p.CanRevoke() || p.Client.CA != "a bundle" || p.Edge.PublicKey != strings.TrimSpace(string(data[CredentialsEdge])) {
		t.Errorf("can revoke: %t, CA %q, account %q", p.CanRevoke(), p.Client.CA, p.Edge.PublicKey)
	}

	for _, optional := range []string{CredentialsSys, CredentialsOperator} {
		without := maps.Clone(data)
		delete(without, optional)
		p, err := ExternalParams(without, contract.Broker{})
		if err != nil || p.CanRevoke() {
			t.Errorf("without %s: can revoke: %t, error %v; want neither", optional, p.CanRevoke(), err)
		}
	}
}

func TestExternalParamsNamesTheKeyAndNeverItsValue(t *testing.T) {
	const planted = "SUAPLANTEDSECRET"
	for _, key := range []string{CredentialsBus, CredentialsEdge, CredentialsEdgeSeed, CredentialsSys, CredentialsOperator} {
		for name, value := range map[string]string{"missing": "", "malformed": planted} {
			optional := key == CredentialsSys || key == CredentialsOperator
			if name == "missing" && optional {
				continue
			}
			t.Run(key+" "+name, func(t *testing.T) {
				data := externalData(t)
				data[key] = []byte(value)
				_, err := ExternalParams(data, contract.Broker{})
				if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), key) {
					t.Fatalf("got %v, want ErrCredentials that names %s", err, key)
				}
				if strings.Contains(err.Error(), planted) {
					t.Errorf("the error repeats the value: %v", err)
				}
			})
		}
	}
}
