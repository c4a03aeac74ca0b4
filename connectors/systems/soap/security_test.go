package soap

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func newGate(digestOnly bool) *gate {
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{contract.FileUsername: "custody", contract.FilePassword: `p<&"ss`})
	return &gate{rt: sdk.Runtime{Secrets: secrets, Config: &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}}, digestOnly: digestOnly}
}

// The digest is that of the profile: Base64(SHA-1(nonce + created + password)), computed by other means.
func TestPasswordDigest(t *testing.T) {
	if got := passwordDigest([]byte("0123456789abcdef"), "2026-01-02T03:04:05Z", "secret"); got != "wjpInr7UL0thZOXWecrqoApQnDY=" {
		t.Errorf("the digest is %s", got)
	}
}

func TestTokens(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	right, wrong := account{"custody", `p<&"ss`}, account{"custody", "wrong"}
	with := func(header []byte) *envelope {
		e, err := parse(build(version11, header, []byte("<a/>")), "")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	text := func(a account) []byte { return a.token(false, now) }
	digest := func(a account) []byte { return a.token(true, now) }
	strip := func(header []byte, from, to string) []byte {
		before, rest, _ := strings.Cut(string(header), from)
		_, after, found := strings.Cut(rest, to)
		if !found {
			t.Fatalf("%s has no %s", header, from)
		}
		return []byte(before + after)
	}
	for _, c := range []struct {
		name   string
		header []byte
		only   bool
		at     time.Time
		says   string
	}{
		{"text", text(right), false, now, ""},
		{"digest", digest(right), false, now, ""},
		{"digest, asked for", digest(right), true, now, ""},
		{"text, where a digest is asked for", text(right), true, now, "PasswordDigest"},
		{"wrong text", text(wrong), false, now, "not the right one"},
		{"wrong digest", digest(wrong), false, now, "not the right one"},
		{"another user", text(account{"other", right.password}), false, now, "not the right one"},
		{"none", nil, false, now, "send a wsse:Security"},
		{"empty", []byte(`<w:Security xmlns:w="` + nsSecurity + `"/>`), false, now, "not one UsernameToken"},
		{"old", digest(right), false, now.Add(6 * time.Minute), "set the clocks right"},
		{"ahead", digest(right), false, now.Add(-6 * time.Minute), "set the clocks right"},
		{"digest without nonce", strip(digest(right), "<wsse:Nonce", "</wsse:Nonce>"), false, now, "not the right one"},
		{"text without nonce and time", strip(strip(text(right), "<wsse:Nonce", "</wsse:Nonce>"), "<wsu:Created>", "</wsu:Created>"), false, now, ""},
	} {
		f := newGate(c.only).check(with(c.header), c.at)
		switch {
		case c.says == "" && f != nil:
			t.Errorf("%s: %s", c.name, f)
		case c.says != "" && (f == nil || !strings.Contains(f.reason, c.says)):
			t.Errorf("%s: %v, want %q", c.name, f, c.says)
		}
	}
}

func TestTokenIsTakenOnce(t *testing.T) {
	now := time.Now()
	g := newGate(true)
	e, err := parse(build(version12, account{"custody", `p<&"ss`}.token(true, now), []byte("<a/>")), "")
	if err != nil {
		t.Fatal(err)
	}
	if f := g.check(e, now); f != nil {
		t.Fatal(f)
	}
	if f := g.check(e, now.Add(time.Minute)); f == nil || !strings.Contains(f.reason, "was sent before") {
		t.Error(f)
	}
	if f := g.check(e, now.Add(11*time.Minute)); f == nil || !strings.Contains(f.reason, "clocks") {
		t.Error(f)
	}
}

func TestNoncesAreBounded(t *testing.T) {
	g, now := newGate(true), time.Now()
	for i := range maxNonces {
		if f := g.remember(strconv.Itoa(i), now); f != nil {
			t.Fatal(i, f)
		}
	}
	if f := g.remember("one more", now); f == nil || f.code != "Server" {
		t.Errorf("more than %d nonces are remembered: %v", maxNonces, f)
	}
	if f := g.remember("one more", now.Add(11*time.Minute)); f != nil {
		t.Errorf("what is old is forgotten: %v", f)
	}
}
