package http

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const defaultSignatureHeader = "X-Signature-256"

// listenAuth checks what callers prove, against the mounted Secret. The values are parsed once for each change of the Secret.
type listenAuth struct {
	auth    contract.Auth
	secrets sdk.Secrets
	header  string // of the signature, canonical
	current atomic.Pointer[listenCredentials]
}

type listenCredentials struct {
	version uint64
	err     error
	// accepted are SHA-256 digests of what an Authorization header may hold after its scheme, so that comparing takes the same time
	// whatever is presented. For basic it is `user:password`.
	accepted [][sha256.Size]byte
	keys     [][]byte
}

func newListenAuth(auth contract.Auth, secrets sdk.Secrets) (*listenAuth, error) {
	switch auth.Kind {
	case contract.AuthAnonymous, contract.AuthBasic, contract.AuthBearer, contract.AuthHMAC:
	default:
		return nil, fmt.Errorf("auth %q is not one of anonymous, basic, bearer and hmac", auth.Kind)
	}
	header := auth.Header
	if header == "" {
		header = defaultSignatureHeader
	}
	return &listenAuth{auth: auth, secrets: secrets, header: http.CanonicalHeaderKey(header)}, nil
}

// credentials are the present ones; err in them says that they are missing, and that nobody can be let in.
func (a *listenAuth) credentials() *listenCredentials {
	version := a.secrets.Version()
	if c := a.current.Load(); c != nil && c.version == version {
		return c
	}
	c := a.read()
	c.version = version
	a.current.Store(c)
	return c
}

func (a *listenAuth) read() *listenCredentials {
	c := &listenCredentials{}
	switch a.auth.Kind {
	case contract.AuthBasic:
		user, err := a.secrets.Get(contract.FileUsername)
		if err != nil {
			return &listenCredentials{err: err}
		}
		password, err := a.secrets.Get(contract.FilePassword)
		if err != nil {
			return &listenCredentials{err: err}
		}
		if len(user) == 0 || len(password) == 0 {
			return &listenCredentials{err: emptySecret(a.auth)}
		}
		c.accepted = [][sha256.Size]byte{sha256.Sum256(bytes.Join([][]byte{user, password}, []byte(":")))}
	case contract.AuthBearer:
		for _, token := range a.lines(contract.FileToken, c) {
			c.accepted = append(c.accepted, sha256.Sum256(token))
		}
	case contract.AuthHMAC:
		c.keys = a.lines(contract.FileHMACKey, c)
	}
	return c
}

// lines of a file that are not empty; none is an error, for an empty token would let everybody in.
func (a *listenAuth) lines(file string, c *listenCredentials) [][]byte {
	value, err := a.secrets.Get(file)
	if err != nil {
		c.err = err
		return nil
	}
	var lines [][]byte
	for line := range bytes.Lines(value) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		c.err = emptySecret(a.auth)
	}
	return lines
}

func emptySecret(auth contract.Auth) error {
	return sdk.Unavailable(contract.ReasonCredentialsMissing,
		fmt.Errorf("Secret %s, key %s: the value is empty", auth.SecretName, strings.Join(auth.Keys, " or ")))
}

// checkHeader checks what can be checked before the body is read: everything but a signature, of which it only asks
// that there is one. It returns nil when the caller may go on.
func (a *listenAuth) checkHeader(c *listenCredentials, h http.Header) *problem {
	switch a.auth.Kind {
	case contract.AuthBasic:
		if c.accepts(basicCredentials(h)) {
			return nil
		}
		return unauthorized(`Basic realm="metip", charset="UTF-8"`, "send the user name and password in the Authorization header (Basic)")
	case contract.AuthBearer:
		scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
		if strings.EqualFold(scheme, "Bearer") && c.accepts(strings.TrimSpace(token)) {
			return nil
		}
		return unauthorized(`Bearer realm="metip"`, "send a valid token in the Authorization header (Bearer)")
	case contract.AuthHMAC:
		if h.Get(a.header) != "" {
			return nil
		}
		return a.unsigned()
	}
	return nil
}

// checkBody checks a signature.
func (a *listenAuth) checkBody(c *listenCredentials, h http.Header, body []byte) *problem {
	if a.auth.Kind != contract.AuthHMAC {
		return nil
	}
	digest, ok := strings.CutPrefix(h.Get(a.header), "sha256=")
	presented, err := hex.DecodeString(digest)
	if !ok || err != nil || len(presented) != sha256.Size {
		return a.unsigned()
	}
	valid := false
	for _, key := range c.keys {
		if hmac.Equal(presented, signature(key, body)) {
			valid = true
		}
	}
	if !valid {
		return a.unsigned()
	}
	return nil
}

func (a *listenAuth) unsigned() *problem {
	return unauthorized(`HMAC-SHA256 header="`+a.header+`"`,
		"send `sha256=` and the HMAC-SHA-256 of the body in hexadecimal in the header "+a.header)
}

func signature(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return mac.Sum(nil)
}

func (c *listenCredentials) accepts(presented string) bool {
	digest := sha256.Sum256([]byte(presented))
	found := 0
	for i := range c.accepted {
		found |= subtle.ConstantTimeCompare(digest[:], c.accepted[i][:])
	}
	return found == 1
}

// basicCredentials is `user:password`, decoded, or empty (which is never accepted: the stored one has a colon).
func basicCredentials(h http.Header) string {
	r := http.Request{Header: h}
	user, password, ok := r.BasicAuth()
	if !ok {
		return ""
	}
	return user + ":" + password
}
