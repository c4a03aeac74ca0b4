package chaos

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/engine/enginetest"
)

// binaries under test.
type binaries struct{ server, connector string }

func build(t *testing.T) binaries {
	t.Helper()
	dir := t.TempDir()
	b := binaries{filepath.Join(dir, "nats-server"), filepath.Join(dir, "connector")}
	for path, pkg := range map[string]string{b.server: "github.com/nats-io/nats-server/v2", b.connector: "github.com/metip/metip/cmd/connector"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	return b
}

// unit is a program that is started again whenever it ends, as the kubelet does.
type unit struct {
	t     testing.TB
	name  string
	make  func() *exec.Cmd
	probe string

	mu      sync.Mutex
	process *enginetest.Process
}

// start the program. It may take a while until it works.
func (u *unit) start() {
	u.process = enginetest.Run(u.t, u.name, u.make())
}

// kill it as kill -9 does, and start it again after a while.
func (u *unit) kill(after time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.process.Kill()
	time.Sleep(after)
	u.start()
}

// freeze it for a while.
func (u *unit) freeze(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.process.Freeze()
	time.Sleep(d)
	u.process.Thaw()
}

// revive it if it has ended by itself.
func (u *unit) revive() (dead bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-u.process.Ended():
		u.start()
		return true
	default:
		return false
	}
}

// answers says whether it works: its readiness probe, or the port that it listens on.
func (u *unit) answers() bool {
	if address, ok := strings.CutPrefix(u.probe, "tcp://"); ok {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	client := http.Client{Timeout: time.Second}
	r, err := client.Get(u.probe)
	if err != nil {
		return false
	}
	_ = r.Body.Close()
	return r.StatusCode == http.StatusOK
}

func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func portOf(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
