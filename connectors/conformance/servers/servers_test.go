package servers

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sleeper is a server that counts its starts in a file and is ready when it has.
func sleeper(t *testing.T) (*Process, string) {
	t.Helper()
	folder, err := Folder("sleeper", "", map[string]string{"etc/starts": ""})
	if err != nil {
		t.Fatal(err)
	}
	starts := filepath.Join(folder, "etc", "starts")
	var seen int
	p, err := Start(Spec{
		Name: "sleeper", Folder: folder, Command: []string{"/bin/sh", "-c", "echo x >>etc/starts; sleep 600 & sleep 600"},
		Ready: func() error {
			raw, err := os.ReadFile(starts)
			if err == nil && len(raw) == seen {
				err = errors.New("not yet")
			}
			if err == nil {
				seen = len(raw)
			}
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, starts
}

func TestServerEndsAndComesBack(t *testing.T) {
	p, starts := sleeper(t)
	for _, end := range []func(){p.Kill, p.Halt} {
		before, ended := p.running()
		end()
		select {
		case <-ended:
		default:
			t.Error("it runs")
		}
		for deadline := time.Now().Add(20 * time.Second); groupRuns(t, before); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("what it has started runs")
			}
		}
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if raw, err := os.ReadFile(starts); err != nil || len(raw) != 6 {
		t.Errorf("%q, %v", raw, err)
	}
}

// groupRuns tells whether a process of the group is alive: one that has ended and waits to be collected is not.
func groupRuns(t *testing.T, group int) bool {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		if fields := strings.Fields(rest); len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" {
			return true
		}
	}
	return false
}

func TestServerThatEndsAtOnceSaysWhy(t *testing.T) {
	folder, err := Folder("bad", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	_, err = Start(Spec{Name: "bad", Folder: folder, Command: []string{"/bin/sh", "-c", "echo the disk is full; exit 1"}, Ready: func() error { return net.ErrClosed }})
	if err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Error(err)
	}
}

func TestFindNamesThePackage(t *testing.T) {
	if path, err := Find("coreutils", "/nowhere/*", "/bin/ca[t]"); err != nil || path != "/bin/cat" {
		t.Errorf("%q, %v", path, err)
	}
	if _, err := Find("fax-server", "/nowhere/*"); err == nil || !strings.Contains(err.Error(), "fax-server") {
		t.Error(err)
	}
}

func TestPortsDiffer(t *testing.T) {
	ports, err := Ports(50)
	seen := map[int]bool{}
	for _, port := range ports {
		if seen[port] || port == 0 {
			t.Errorf("%d twice", port)
		}
		seen[port] = true
	}
	if err != nil || len(ports) != 50 {
		t.Error(ports, err)
	}
}

// A process that is frozen does nothing any more when Freeze returns.
func TestAwaitStopped(t *testing.T) {
	busy := exec.Command("sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Process.Kill(); _ = busy.Wait() }()
	if !runs(busy.Process.Pid) {
		t.Error("a process that works is taken for one that is stopped")
	}
	if err := busy.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	AwaitStopped(busy.Process.Pid)
	if runs(busy.Process.Pid) {
		t.Error("it still runs")
	}
}
