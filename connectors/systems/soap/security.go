package soap

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the profile of UsernameToken asks for it
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

// Kinds of security.
const (
	securityNone   = "None"
	securityToken  = "UsernameToken"
	securityDigest = "UsernameTokenDigest"
)

const (
	typeText   = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordText"
	typeDigest = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordDigest"
	typeBase64 = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary"

	// freshness is how old, or how far ahead, a token may be.
	freshness = 5 * time.Minute
	// maxNonces that are remembered for as long; maxNonceBytes of one.
	maxNonces     = 100_000
	maxNonceBytes = 256
)

func checkSecurity(security string, auth contract.Auth) error {
	switch security {
	case "", securityNone:
		return nil
	case securityToken, securityDigest:
		if auth.Kind != contract.AuthBasic {
			return fmt.Errorf("security %s needs auth.basic, whose user name and password the token has", security)
		}
		return nil
	}
	return fmt.Errorf("security %q is not one of %s, %s and %s", security, securityNone, securityToken, securityDigest)
}

func secured(security string) bool { return security == securityToken || security == securityDigest }

// account of the mounted Secret.
type account struct{ user, password string }

func readAccount(secrets sdk.Secrets, auth contract.Auth) (a account, err error) {
	user, err := secrets.Get(contract.FileUsername)
	if err != nil {
		return a, err
	}
	password, err := secrets.Get(contract.FilePassword)
	if err != nil {
		return a, err
	}
	if len(user) == 0 || len(password) == 0 {
		return a, sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("Secret %s, key %s: the value is empty", auth.SecretName, strings.Join(auth.Keys, " or ")))
	}
	return account{string(user), string(password)}, nil
}

// token is the header block with a UsernameToken, for an envelope whose namespace has the prefix soap.
func (a account) token(digest bool, now time.Time) []byte {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // it never fails
	created := now.UTC().Format("2006-01-02T15:04:05.000Z")
	kind, password := typeText, a.password
	if digest {
		kind, password = typeDigest, passwordDigest(nonce, created, a.password)
	}
	out := []byte(`<wsse:Security xmlns:wsse="` + nsSecurity + `" xmlns:wsu="` + nsUtility + `" soap:mustUnderstand="1"><wsse:UsernameToken><wsse:Username>`)
	out = append(xmlns.AppendText(out, a.user), `</wsse:Username><wsse:Password Type="`+kind+`">`...)
	out = append(xmlns.AppendText(out, password), `</wsse:Password><wsse:Nonce EncodingType="`+typeBase64+`">`...)
	out = append(out, base64.StdEncoding.EncodeToString(nonce)...)
	return append(out, "</wsse:Nonce><wsu:Created>"+created+"</wsu:Created></wsse:UsernameToken></wsse:Security>"...)
}

func passwordDigest(nonce []byte, created, password string) string {
	sum := sha1.Sum(bytes.Join([][]byte{nonce, []byte(created), []byte(password)}, nil)) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// gate lets in who shows the UsernameToken of the mounted Secret.
type gate struct {
	rt sdk.Runtime
	// digestOnly: a password in the clear is not taken.
	digestOnly bool

	mu     sync.Mutex
	nonces map[string]time.Time
	swept  time.Time
}

type usernameToken struct {
	Username string `xml:"Username"`
	Password struct {
		Type  string `xml:"Type,attr"`
		Value string `xml:",chardata"`
	} `xml:"Password"`
	Nonce   string `xml:"Nonce"`
	Created string `xml:"Created"`
}

// securityBlock is the header wsse:Security.
type securityBlock struct {
	Tokens     []usernameToken `xml:"UsernameToken"`
	Timestamps []timestamp     `xml:"Timestamp"`
	Others     []struct {
		XMLName xml.Name
	} `xml:",any"`
}

type timestamp struct {
	Created string `xml:"Created"`
	Expires string `xml:"Expires"`
}

// credentials says whether there are some to check by.
func (g *gate) credentials() error {
	_, err := readAccount(g.rt.Secrets, g.rt.Config.Auth)
	return err
}

// check the token of an envelope; nil lets it in.
func (g *gate) check(e *envelope, now time.Time) *fault {
	own, err := readAccount(g.rt.Secrets, g.rt.Config.Auth)
	if err != nil {
		return &fault{code: "Server", reason: "the connector has no credentials to check yours against yet: send it again later"}
	}
	h := e.header(nsSecurity, "Security")
	if h == nil {
		return denied("InvalidSecurity", "send a wsse:Security header with a UsernameToken")
	}
	var block securityBlock
	if err := xml.Unmarshal(h.raw, &block); err != nil || len(block.Tokens) != 1 {
		return denied("InvalidSecurity", "the wsse:Security header has not one UsernameToken")
	}
	if h.mustUnderstand && len(block.Others) > 0 { // a signature, say: who sent it counts on its being checked
		return denied("UnsupportedSecurityToken", fmt.Sprintf("the wsse:Security header must be understood, and %.80s is not: UsernameToken and Timestamp are", block.Others[0].XMLName.Local))
	}
	for _, t := range block.Timestamps {
		if f := t.check(now); f != nil {
			return f
		}
	}
	return g.admit(&block.Tokens[0], own, now)
}

// forget the nonce of a request that was not taken and may come again as it is: with its token, too.
func (g *gate) forget(security *header) {
	var block securityBlock
	if security == nil || xml.Unmarshal(security.raw, &block) != nil || len(block.Tokens) != 1 {
		return
	}
	nonce, err := base64.StdEncoding.DecodeString(strings.TrimSpace(block.Tokens[0].Nonce))
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.nonces, string(nonce))
}

// check a Timestamp: where it says until when the request is good, it is held to it.
func (t *timestamp) check(now time.Time) *fault {
	for i, text := range []string{t.Created, t.Expires} {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		switch at, err := time.Parse(time.RFC3339Nano, text); {
		case err != nil:
			return denied("InvalidSecurity", "the Timestamp has a time that is none: it is UTC, such as 2026-01-02T03:04:05Z")
		case i == 0 && at.After(now.Add(freshness)):
			return denied("InvalidSecurity", "the Timestamp was created in the future: set the clocks right")
		case i == 1 && at.Before(now.Add(-freshness)):
			return denied("MessageExpired", "the Timestamp has expired: set the clocks right, or send it with a new one")
		}
	}
	return nil
}

func (g *gate) admit(t *usernameToken, own account, now time.Time) *fault {
	nonce, err := base64.StdEncoding.DecodeString(strings.TrimSpace(t.Nonce))
	if err != nil || len(nonce) > maxNonceBytes {
		return denied("InvalidSecurityToken", "the Nonce is not in base64, or too long")
	}
	created := strings.TrimSpace(t.Created)
	digest := strings.HasSuffix(t.Password.Type, "#PasswordDigest")
	expected := own.password
	if digest {
		expected = passwordDigest(nonce, created, own.password)
	} else if g.digestOnly {
		return denied("InvalidSecurityToken", "send the password as PasswordDigest, with Nonce and Created")
	}
	user, password := equal(strings.TrimSpace(t.Username), own.user), equal(strings.TrimSpace(t.Password.Value), expected)
	if user&password != 1 {
		return denied("FailedAuthentication", "the user name or the password is not the right one")
	}
	if digest && (len(nonce) == 0 || created == "") {
		return denied("InvalidSecurityToken", "a PasswordDigest needs Nonce and Created")
	}
	if created == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, created)
	if err != nil || at.Before(now.Add(-freshness)) || at.After(now.Add(freshness)) {
		return denied("InvalidSecurityToken", fmt.Sprintf("Created is not within %s of now: set the clocks right", freshness))
	}
	if len(nonce) == 0 {
		return nil
	}
	return g.remember(string(nonce), now)
}

// remember a nonce for as long as its token is fresh: it is taken once.
func (g *gate) remember(nonce string, now time.Time) *fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nonces == nil {
		g.nonces = map[string]time.Time{}
	}
	if since := now.Sub(g.swept); since > freshness/4 || len(g.nonces) >= maxNonces && since > time.Second {
		for n, until := range g.nonces {
			if now.After(until) {
				delete(g.nonces, n)
			}
		}
		g.swept = now
	}
	if _, known := g.nonces[nonce]; known {
		return denied("InvalidSecurityToken", "the Nonce was sent before: make a new one for each request")
	}
	if len(g.nonces) >= maxNonces {
		return &fault{code: "Server", reason: "too many requests within the time that a Nonce is remembered: send it again later"}
	}
	g.nonces[nonce] = now.Add(2 * freshness)
	return nil
}

func denied(code, reason string) *fault {
	return &fault{code: "Client", subcodes: []string{code}, reason: reason}
}

// equal takes the same time whatever is given.
func equal(given, wanted string) int {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(wanted))
	return subtle.ConstantTimeCompare(a[:], b[:])
}
