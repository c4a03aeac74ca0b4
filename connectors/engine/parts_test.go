package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestParseConfig(t *testing.T) {
	good := contract.Config{
		Version: 1, Connector: contract.Connector{Namespace: "ns", Name: "a", UID: "u", Integration: "in"}, Broker: contract.Broker{URLs: []string{"nats://x"}},
		Source: &contract.Source{System: contract.System{Type: "http", Options: []byte("{}")}, EventType: "t"},
	}
	for name, c := range map[string]struct {
		change func(*contract.Config)
		want   string
	}{
		"good":      {func(*contract.Config) {}, ""},
		"version":   {func(c *contract.Config) { c.Version = 2 }, "version 2, and this program reads version 1"},
		"no role":   {func(c *contract.Config) { c.Source = nil }, "exactly one of source, sink and service"},
		"two roles": {func(c *contract.Config) { c.Sink = &contract.Sink{System: contract.System{Type: "x"}} }, "exactly one of source, sink and service"},
		"name":      {func(c *contract.Config) { c.Connector.Name = "a.b" }, "connector.name"},
		"no broker": {func(c *contract.Config) { c.Broker.URLs = nil }, "broker.urls"},
	} {
		config := good
		c.change(&config)
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseConfig(raw)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := ParseConfig([]byte("{")); err == nil {
		t.Error("half a document")
	}
}

func TestDialGuard(t *testing.T) {
	strict, loose := newDialer(false), newDialer(true)
	for address, allowed := range map[string]bool{
		"10.1.2.3": true, "93.184.216.34": true, "2001:db8::1": true, "fd00::1": true,
		"169.254.169.254": false, "169.254.1.1": false, "fe80::1": false, "fe80::1%eth0": false, "::ffff:169.254.169.254": false, "64:ff9b::a9fe:a9fe": false, "2002:a9fe:a9fe::": false,
		"0.0.0.0": false, "0.1.2.3": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
		"127.0.0.1": false, "127.8.8.8": false, "::1": false, "::ffff:127.0.0.1": false, "100.100.100.200": false, "fd00:ec2::254": false,
	} {
		a := netip.MustParseAddr(address)
		if err := strict.check(a); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
		if a.Unmap().IsLoopback() && loose.check(a) != nil {
			t.Errorf("%s is refused though loopback is allowed", address)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if _, err := strict.DialContext(t.Context(), "tcp", "localhost:"+port); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Error("a name that resolves to loopback:", err)
	}
	c, err := loose.DialContext(t.Context(), "tcp", "localhost:"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// kubeletWrite changes files as the kubelet does: a new folder, and the symbolic link ..data swapped to it.
func kubeletWrite(t *testing.T, dir, version string, files map[string]string) {
	t.Helper()
	data := filepath.Join(dir, ".."+version)
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, value := range files {
		writeFile(t, data, name, value)
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name))
	}
	link := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(".."+version, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	kubeletWrite(t, dir, "1", map[string]string{contract.FilePassword: "one\n"})
	c := &contract.Config{
		Connector: contract.Connector{Namespace: "met"}, Auth: contract.Auth{Kind: contract.AuthBasic, SecretName: "court-db", Keys: []string{"username", "password"}},
		TLS: &contract.TLS{CAFrom: "secret court-tls key ca.crt"},
	}
	s := newSecrets(dir, c, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.watch(ctx)
	get := func(file, want string) bool { v, err := s.Get(file); return err == nil && string(v) == want }
	if !get(contract.FilePassword, "one") {
		t.Fatal("not read")
	}
	var u *sdk.UnavailableError
	if _, err := s.Get(contract.FileUsername); !errors.As(err, &u) || u.Reason != contract.ReasonCredentialsMissing || !strings.Contains(err.Error(), "secret court-db key username") || !strings.Contains(err.Error(), "met") {
		t.Error(err)
	}
	if _, err := s.Get(contract.FileCA); err == nil || !strings.Contains(err.Error(), "secret court-tls key ca.crt") {
		t.Error(err)
	}
	changed, version := s.Changed(), s.Version()
	kubeletWrite(t, dir, "2", map[string]string{contract.FilePassword: "two", contract.FileUsername: "me"})
	select {
	case <-changed:
	case <-time.After(5 * time.Second):
		t.Fatal("the swap is not noticed")
	}
	// Files that are read while they are swapped are read again.
	within(t, 5*time.Second, "both files read again", func() bool {
		return get(contract.FilePassword, "two") && get(contract.FileUsername, "me") && s.Version() > version
	})
	// A file that vanishes keeps its last good value; an empty one too.
	kubeletWrite(t, dir, "3", map[string]string{contract.FileUsername: ""})
	_ = os.Remove(filepath.Join(dir, contract.FilePassword))
	writeFile(t, dir, contract.FileToken, "t")
	within(t, 5*time.Second, "the token read", func() bool { return get(contract.FileToken, "t") })
	if !get(contract.FilePassword, "two") || !get(contract.FileUsername, "me") {
		t.Error("the last good value is lost")
	}
}

func TestEncodeReport(t *testing.T) {
	r := contract.Report{}
	for i := range 40 {
		r.Routes = append(r.Routes, contract.RouteState{Route: fmt.Sprintf("r%02d", 39-i), Destination: "d", State: state(errors.New(strings.Repeat("é<x>\n", 200)), contract.ReasonSystemError, time.Now())})
	}
	raw, err := encodeReport(r)
	if err != nil || len(raw) > contract.MaxReportSize {
		t.Fatal(len(raw), err)
	}
	var back contract.Report
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Routes) == 0 || len(back.Routes)+back.MoreRoutes != 40 || back.Routes[0].Route != "r00" || len(back.Routes[0].Message) > contract.MaxReportMessage {
		t.Errorf("%d routes and %d more; the first is %s with a message of %d bytes", len(back.Routes), back.MoreRoutes, back.Routes[0].Route, len(back.Routes[0].Message))
	}
}

func TestParseReply(t *testing.T) {
	for reply, want := range map[string]replyMeta{
		"$JS.ACK.ns_in.ns_r_d.3.42.7.1795381268334148781.0":           {identity{42, 1795381268334148781}, 3, 7},
		"$JS.ACK._.ACCHASH.ns_in.ns_r_d.3.42.7.1795381268334148781.0": {identity{42, 1795381268334148781}, 3, 7},
		"$JS.ACK.dom.ACCHASH.ns_in.ns_r_d.3.42.7.17.0.rand":           {identity{42, 17}, 3, 7},
	} {
		if got, err := parseReply(reply); err != nil || got != want {
			t.Errorf("%s: %v, %v", reply, got, err)
		}
	}
	for _, reply := range []string{"", "$JS.ACK.a.b", "x.ACK.ns_in.ns_r_d.3.42.7.1.0", "$JS.ACK.ns_in.ns_r_d.x.42.7.1.0"} {
		if _, err := parseReply(reply); err == nil {
			t.Error(reply)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 5: 10 * time.Second, 40: 10 * time.Second, 1000: 10 * time.Second} {
		if got := backoff(time.Second, 10*time.Second, n); got < want*8/10 || got > want*12/10 {
			t.Errorf("after %d attempts: %s, want about %s", n, got, want)
		}
	}
}

func TestHeaderEscapes(t *testing.T) {
	for _, s := range []string{"plain", "a b", "50%", "%41", "é\r\n\x00", `"`, ""} {
		if got := unescapeHeader(escapeHeader(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
		if e := escapeHeader(s); strings.ContainsAny(e, "\r\n \"") {
			t.Errorf("%q is escaped as %q", s, e)
		}
	}
	if unescapeHeader("%zz%4") != "%zz%4" {
		t.Error("what is no code stays")
	}
}
