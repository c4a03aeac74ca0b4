package bus

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/metip/metip/connectors/contract"
)

func operatorClaims(operator nkeys.KeyPair, systemAccount string) (*jwt.OperatorClaims, error) {
	public, err := operator.PublicKey()
	if err != nil {
		return nil, err
	}
	claims := jwt.NewOperatorClaims(public)
	claims.Name = "metip"
	claims.SystemAccount = systemAccount
	return claims, nil
}

func sysClaims(a Account) (*jwt.AccountClaims, error) { return accountClaims(a, "SYS") }

// busClaims of the account that holds the streams. Its exports are all that account EDGE can reach of it.
func busClaims(a Account) (*jwt.AccountClaims, error) {
	claims, err := accountClaims(a, "BUS")
	if err != nil {
		return nil, err
	}
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
		MaxAckPending: jwt.NoLimit, MemoryMaxStreamBytes: jwt.NoLimit, DiskMaxStreamBytes: jwt.NoLimit,
	}
	for _, e := range contract.BusExports() {
		response := jwt.ResponseType(jwt.ResponseTypeSingleton)
		if e.Streams {
			response = jwt.ResponseTypeStream
		}
		claims.Exports.Add(&jwt.Export{Name: e.Subject, Subject: jwt.Subject(e.Subject), Type: jwt.Service, ResponseType: response})
	}
	return claims, nil
}

// edgeClaims of the account that the connectors join. Reply subjects are not permission-checked; the border between the accounts
// is what keeps a connector from sending the server's answers to a subject of account BUS.
func edgeClaims(a Account, bus string) (*jwt.AccountClaims, error) {
	claims, err := accountClaims(a, "EDGE")
	if err != nil {
		return nil, err
	}
	for _, e := range contract.BusExports() {
		claims.Imports.Add(&jwt.Import{
			Name: e.Subject, Subject: jwt.Subject(e.Subject), Account: bus, Type: jwt.Service, LocalSubject: jwt.RenamingSubject(e.Local),
		})
	}
	return claims, nil
}

func accountClaims(a Account, name string) (*jwt.AccountClaims, error) {
	signing, err := a.Signing.PublicKey()
	if err != nil {
		return nil, err
	}
	claims := jwt.NewAccountClaims(a.PublicKey)
	claims.Name = name
	if signing != a.PublicKey {
		claims.SigningKeys.Add(signing)
	}
	return claims, nil
}

// sameClaims compares everything but who signed when.
func sameClaims(a, b *jwt.AccountClaims) bool {
	return string(claimsText(a)) == string(claimsText(b))
}

// claimsText sorts what encoding sorts.
func claimsText(c *jwt.AccountClaims) []byte {
	imports, exports := slices.Clone(c.Imports), slices.Clone(c.Exports)
	slices.SortFunc(imports, func(a, b *jwt.Import) int { return cmp.Compare(a.Subject, b.Subject) })
	slices.SortFunc(exports, func(a, b *jwt.Export) int { return cmp.Compare(a.Subject, b.Subject) })
	v := struct {
		Name        string
		Imports     jwt.Imports
		Exports     jwt.Exports
		Limits      jwt.OperatorLimits
		SigningKeys []string
	}{c.Name, imports, exports, c.Limits, slices.Sorted(maps.Keys(c.SigningKeys))}
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return text
}

// edgePermissions are a connector's permissions as claims. Nothing is allowed that is not listed.
func edgePermissions(p contract.Permissions) *jwt.Permissions {
	allow := &jwt.Permissions{}
	allow.Pub.Allow, allow.Sub.Allow = slices.Clone(p.Publish), slices.Clone(p.Subscribe)
	if len(p.Publish) == 0 {
		allow.Pub.Deny = jwt.StringList{">"}
	}
	if len(p.Subscribe) == 0 {
		allow.Sub.Deny = jwt.StringList{">"}
	}
	if r := p.Responses; r != nil {
		allow.Resp = &jwt.ResponsePermission{MaxMsgs: r.Max, Expires: r.TTL}
	}
	return allow
}

// revoke adds a revocation to encoded claims of account EDGE, drops those older than forget, since their users have expired, and
// signs. An entry that is there already is not moved.
func revoke(encoded, publicKey string, now time.Time, forget time.Duration, operator nkeys.KeyPair) (string, error) {
	claims, err := jwt.DecodeAccountClaims(encoded)
	if err != nil {
		return "", err
	}
	for key, at := range claims.Revocations {
		if now.Sub(time.Unix(at, 0)) > forget {
			delete(claims.Revocations, key)
		}
	}
	if _, done := claims.Revocations[publicKey]; !done {
		claims.RevokeAt(publicKey, now)
	}
	return claims.Encode(operator)
}

// isRevoked says whether encoded claims revoke a user.
func isRevoked(encoded, publicKey string) bool {
	claims, err := jwt.DecodeAccountClaims(encoded)
	if err != nil {
		return false
	}
	_, ok := claims.Revocations[publicKey]
	return ok
}
