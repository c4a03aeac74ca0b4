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

	"github.com/metip/metip/connectors/conformance/servers"
)

// Process is what can be killed and frozen as a pod or a server is: the test's own binary, run once more, whose TestMain finds by its
// environment what it is to be; or any other program.
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
	cmd := exec.Command(must[string](t, "find this binary")(os.Executable()))
	cmd.Env = append(os.Environ(), env...)
	return Run(t, name, cmd)
}

// Run is Spawn of any command.
func Run(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{name: name, cmd: cmd, log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
	out := must[*os.File](t, "make a log")(os.Create(p.log))
	defer func() { _ = out.Close() }()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
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
func (p *Process) Freeze() {
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	servers.AwaitStopped(p.cmd.Process.Pid)
}

// Thaw a frozen process.
func (p *Process) Thaw() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// Pid of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended, by itself or not.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// tail of what it said.
func (p *Process) tail() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// Terminate it as a kubelet does, and wait for its end.
func (p *Process) Terminate() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
}
