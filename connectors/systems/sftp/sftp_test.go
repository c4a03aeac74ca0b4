package sftp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// server is the library's own, which asks for a password: OpenSSH, which the behaviour suite speaks to, takes those of the machine's users only.
type server struct {
	port    int
	hostKey string
	dir     string
}

const password = "correct-horse-battery"

func serve(t *testing.T) *server {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, given []byte) (*ssh.Permissions, error) {
		if c.User() == "custody" && string(given) == password {
			return nil, nil
		}
		return nil, errors.New("no")
	}}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	s := &server{listener.Addr().(*net.TCPAddr).Port, ssh.FingerprintSHA256(signer.PublicKey()), t.TempDir()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.session(conn, config)
		}
	}()
	return s
}

func (s *server) session(conn net.Conn, config *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for asked := range channels {
		channel, requests, err := asked.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		files, err := sftp.NewServer(channel, sftp.WithServerWorkingDirectory(s.dir))
		if err != nil {
			return
		}
		go func() { _ = files.Serve() }()
	}
}

func (s *server) connection() map[string]any {
	return map[string]any{"host": "127.0.0.1", "port": s.port, "hostKeys": []string{s.hostKey}}
}

func runtime(t *testing.T, secrets map[string]string, kind contract.AuthKind) sdk.Runtime {
	t.Helper()
	mounted := &fakes.Secrets{}
	mounted.Set(secrets)
	return fakes.Runtime(t, &contract.Config{
		Auth: contract.Auth{Kind: kind, User: "custody", SecretName: "files", Keys: []string{"k"}}, Source: &contract.Source{Format: sdk.FormatJSON, EventType: "e"},
	}, mounted, nil)
}

func basic(given string) map[string]string {
	return map[string]string{contract.FileUsername: "custody", contract.FilePassword: given}
}

func open(t *testing.T, rt sdk.Runtime, connection map[string]any, write map[string]any) (sdk.Sink, sdk.Operation) {
	t.Helper()
	s, err := NewSink(rt, fakes.JSON(t, map[string]any{"connection": connection, "write": write}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, op
}

func check(t *testing.T, rt sdk.Runtime, connection map[string]any) error {
	t.Helper()
	s, _ := open(t, rt, connection, map[string]any{"path": "a"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.Check(ctx)
}

func TestWhoTheServerIs(t *testing.T) {
	s := serve(t)
	if err := check(t, runtime(t, basic(password), contract.AuthBasic), s.connection()); err != nil {
		t.Fatal(err)
	}
	other := s.connection()
	other["hostKeys"] = []string{"SHA256:" + strings.Repeat("A", 43)}
	err := check(t, runtime(t, basic(password), contract.AuthBasic), other)
	var unavailable *sdk.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Reason != contract.ReasonCertificateInvalid || !strings.Contains(err.Error(), s.hostKey) {
		t.Errorf("another host key: %v", err)
	}
	err = check(t, runtime(t, basic("wrong-password"), contract.AuthBasic), s.connection())
	if !errors.As(err, &unavailable) || unavailable.Reason != contract.ReasonAuthenticationFailed || strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	s := serve(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"hello": "no private key", string(pem.EncodeToMemory(locked)): "has a passphrase"} {
		err := check(t, runtime(t, map[string]string{contract.FileSSHKey: key}, contract.AuthSSH), s.connection())
		var unavailable *sdk.UnavailableError
		if !errors.As(err, &unavailable) || unavailable.Reason != contract.ReasonCredentialsMissing || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	rt := runtime(t, nil, contract.AuthBasic)
	good := map[string]any{"host": "a", "hostKeys": []string{"SHA256:" + strings.Repeat("A", 43)}}
	for want, o := range map[string]map[string]any{
		"host and port":  {"connection": map[string]any{}},
		"must hold":      {"connection": map[string]any{"host": "a"}},
		"no fingerprint": {"connection": map[string]any{"host": "a", "hostKeys": []string{"MD5:aa"}}},
		"is no path":     {"connection": good, "base": "a/../b", "records": map[string]any{"lines": map[string]any{}}},
		"exactly one":    {"connection": good},
		"at most":        {"connection": good, "records": map[string]any{"whole": map[string]any{"maxSize": "9Mi"}}},
	} {
		if _, err := NewSource(rt, fakes.JSON(t, o)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := NewSource(runtime(t, nil, contract.AuthBearer), fakes.JSON(t, map[string]any{"connection": good})); err == nil {
		t.Error("a bearer token is taken")
	}
}

// A server without OpenSSH's extensions replaces files too.
func TestFilesAreReplacedOrRejected(t *testing.T) {
	s := serve(t)
	write := func(exists, id, body string) error {
		_, op := open(t, runtime(t, basic(password), contract.AuthBasic), s.connection(), map[string]any{"path": "out/{data.id}.json", "exists": exists})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return op.Write(ctx, []*sdk.Delivery{fakes.Delivery(id, body)})[0]
	}
	content := func() string {
		raw, err := os.ReadFile(filepath.Join(s.dir, "out", "a.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for _, body := range []string{`{"id":"a","v":1}`, `{"id":"a","v":2}`} {
		if err := write("Replace", "1", body); err != nil || content() != body {
			t.Errorf("%s: %v, %s", body, err, content())
		}
	}
	if err := write("Reject", "1", content()); err != nil {
		t.Errorf("what was delivered before: %v", err)
	}
	if err := write("Reject", "2", `{"id":"a","v":3}`); !sdk.IsPermanent(err) || content() != `{"id":"a","v":2}` {
		t.Errorf("%v, %s", err, content())
	}
	// A value stays part of one name.
	if err := write("Replace", "3", `{"id":"../../x"}`); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "out", "%2E.%2F..%2Fx.json")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "out", ".metip-*")); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// Lines are taken in, put away, and what is no JSON goes to the failed folder, with the reason.
func TestSource(t *testing.T) {
	s := serve(t)
	for name, body := range map[string]string{"a.jsonl": "{\"n\":1}\n{\"n\":2}\n", "b.jsonl": "no\n"} {
		if err := os.MkdirAll(filepath.Join(s.dir, "in"), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "in", name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source, err := NewSource(runtime(t, basic(password), contract.AuthBasic), fakes.JSON(t, map[string]any{
		"connection": s.connection(), "folder": "in", "stableFor": "0s", "records": map[string]any{"lines": map[string]any{}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	bus, done := &fakes.Publisher{}, make(chan error, 1)
	go func() { done <- source.Run(ctx, bus, &fakes.Reporter{}) }()
	why := filepath.Join(s.dir, "in", "failed", "b.jsonl.error")
	fakes.Eventually(t, time.Minute, "both files are put away", func() bool {
		_, err1 := os.Stat(filepath.Join(s.dir, "in", "done", "a.jsonl"))
		_, err2 := os.Stat(why)
		return err1 == nil && err2 == nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(bus.Stored()) != 2 || string(bus.Stored()[1].Data) != `{"n":2}` {
		t.Errorf("%d messages", len(bus.Stored()))
	}
	raw, err := os.ReadFile(why)
	if err != nil || !strings.Contains(string(raw), "begins at byte 0") {
		t.Errorf("%s, %v", raw, err)
	}
}

// A large file is read from an offset, and not more of it than is asked for.
func TestReadingFromAnOffset(t *testing.T) {
	s := serve(t)
	var content strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&content, "%08d\n", i)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "large"), []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := newRemote(runtime(t, basic(password), contract.AuthBasic), connectionOptions{Host: "127.0.0.1", Port: s.port, HostKeys: []string{s.hostKey}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	in, err := tree{r, "."}.Open("large", 9*5000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	got, err := io.ReadAll(io.LimitReader(in, 18))
	if err != nil || string(got) != "00005000\n00005001\n" {
		t.Errorf("%q, %v", got, err)
	}
}
