package enginetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Process is the test's own binary, run once more: what can be killed as a pod or a server is. Its TestMain finds by its environment what
// it is to be.
type Process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// spawner starts all children: Linux ends a child with Pdeathsig when the thread that started it ends, so one thread starts them all, and lasts.
var spawner = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})

// Spawn a child with these variables (NAME=value) in its environment. It is killed at the end of the test; if that has failed, the end of
// what the child said is in the test's log.
func Spawn(t testing.TB, name string, env ...string) *Process {
	t.Helper()
	p := &Process{name: name, log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
	out := must[*os.File](t, "make a log")(os.Create(p.log))
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command(must[string](t, "find this binary")(os.Executable()))
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawner() <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.tail())
		}
	})
	return p
}

// Kill the process as kill -9 does, and wait for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Freeze it, as a node does that is out of breath, and Thaw it.
func (p *Process) Freeze() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw a frozen process.
func (p *Process) Thaw() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// Ended is closed when the process has ended, by itself or not.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// tail of what it said.
func (p *Process) tail() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
