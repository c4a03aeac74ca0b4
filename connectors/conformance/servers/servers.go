package servers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 2 * time.Minute
	endTimeout   = 30 * time.Second
)

// Find the newest of the files that the patterns match; pack is the Debian package that has it.
func Find(pack string, patterns ...string) (string, error) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			slices.Sort(found)
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s is not installed: run `make deps` as root, or `apt-get install --no-install-recommends %s`", pack, pack)
}

// Ports are so many different ports on loopback that nobody listened on a moment ago.
func Ports(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports { // all are held until the last is found: a port that is let go may be found again
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// Account that a server runs as where the tests are root and it refuses to be, or is not to be. The empty one is the tests' own.
type Account string

// credential of the account; nil where nothing has to change.
func (a Account) credential() (*syscall.Credential, error) {
	if a == "" || os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(string(a))
	if err != nil {
		return nil, fmt.Errorf("the server cannot run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// Folder for a server's data, with these files in it, owned by the account.
func Folder(name string, account Account, files map[string]string) (string, error) {
	folder, err := os.MkdirTemp("", "metip-"+name+"-")
	if err != nil {
		return "", err
	}
	for file, content := range files {
		path := filepath.Join(folder, file)
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(folder))
		}
	}
	if err := account.own(folder); err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return folder, nil
}

func (a Account) own(folder string) error {
	c, err := a.credential()
	if c == nil || err != nil {
		return err
	}
	return filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(c.Uid), int(c.Gid))
	})
}

// Spec of a server's process.
type Spec struct {
	// Name in errors.
	Name string
	// Command with its arguments, in Folder, with Env and a PATH.
	Command []string
	Folder  string
	Env     []string
	Account Account
	// Ready says nil once the server answers. It is asked again and again.
	Ready func() error
	// Halt is the signal for an orderly end, by default SIGTERM; Crash the one for the other, by default SIGKILL.
	Halt, Crash syscall.Signal
}

// Process is a server that runs, with all processes that it has started.
type Process struct {
	spec  Spec
	log   string
	mu    sync.Mutex
	pid   int
	ended chan struct{}
}

// starter starts all servers: Linux ends a process with Pdeathsig when the thread that started it ends, so one thread starts them all, and lasts.
var starter = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})

// Start a server, and wait until it is ready.
func Start(spec Spec) (*Process, error) {
	if spec.Halt == 0 {
		spec.Halt = syscall.SIGTERM
	}
	if spec.Crash == 0 {
		spec.Crash = syscall.SIGKILL
	}
	p := &Process{spec: spec, log: filepath.Join(spec.Folder, "output.log")}
	return p, p.Resume()
}

// Resume a server that has ended: the same command in the same folder.
func (p *Process) Resume() error {
	credential, err := p.spec.Account.credential()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(p.spec.Command[0], p.spec.Command[1:]...)
	cmd.Dir, cmd.Env = p.spec.Folder, append([]string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}, p.spec.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	// It goes with the test, however that ends. It leads a group, so that what it has started goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: p.spec.Crash, Setpgid: true, Credential: credential}
	started := make(chan error)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.pid, p.ended = cmd.Process.Pid, ended
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ends is what tests ask for
		close(ended)
	}()
	for deadline := time.Now().Add(startTimeout); ; {
		err := p.spec.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended: %s", p.spec.Name, p.Tail())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.Kill()
			return fmt.Errorf("%s did not answer within %s: %w: %s", p.spec.Name, startTimeout, err, p.Tail())
		}
	}
}

func (p *Process) running() (pid int, ended chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid, p.ended
}

// Running tells whether it has not ended.
func (p *Process) Running() bool {
	_, ended := p.running()
	select {
	case <-ended:
		return false
	default:
		return true
	}
}

// signal the server's group, unless it has ended: another may have its number then.
func (p *Process) signal(s syscall.Signal) {
	pid, ended := p.running()
	select {
	case <-ended:
	default:
		for _, child := range descendants(pid) { // some lead a group of their own
			_ = syscall.Kill(child, s)
		}
		_ = syscall.Kill(-pid, s)
	}
}

// Signal the server and what it has started, where a signal means something to it: to read its configuration, for example.
func (p *Process) Signal(s syscall.Signal) { p.signal(s) }

// descendants of a process, the nearest first.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// the command may hold blanks and brackets
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		child, err1 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if len(fields) < 2 || err1 != nil {
			continue
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	var all []int
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

func (p *Process) end(s syscall.Signal) {
	p.signal(s)
	_, ended := p.running()
	select {
	case <-ended:
	case <-time.After(endTimeout):
		p.signal(syscall.SIGKILL)
		<-ended
	}
}

// Kill ends the server as a crash does.
func (p *Process) Kill() { p.end(p.spec.Crash) }

// Halt ends it in order.
func (p *Process) Halt() { p.end(p.spec.Halt) }

// Freeze stops it from working, with its connections open, and Thaw lets it go on.
func (p *Process) Freeze() {
	p.signal(syscall.SIGSTOP)
	pid, _ := p.running()
	AwaitStopped(append(descendants(pid), pid)...)
}

// Thaw a frozen server.
func (p *Process) Thaw() { p.signal(syscall.SIGCONT) }

// Close kills it and removes its folder.
func (p *Process) Close() {
	p.Kill()
	_ = os.RemoveAll(p.spec.Folder)
}

// Tail of what it has said.
func (p *Process) Tail() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
