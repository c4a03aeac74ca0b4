package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	fields := " S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10"
	for _, name := range []string{"etcd", "a b", "evil) R 1 (", "tab\there"} {
		s, err := parseStat([]byte("42 (" + name + ")" + fields))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if s.state != 'S' || s.start != 987654 {
			t.Errorf("%q: got state %c, start %d", name, s.state, s.start)
		}
	}
	for _, damaged := range []string{"", "42", "42 (x) S 1"} {
		if _, err := parseStat([]byte(damaged)); err == nil {
			t.Errorf("%q was accepted", damaged)
		}
	}
}

func TestARecordIsAliveOnlyForItsVeryProcess(t *testing.T) {
	self, err := Identify("self", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.Alive() {
		t.Error("this process counts as dead")
	}
	for what, change := range map[string]func(*Record){
		"the id was used again":  func(r *Record) { r.Start++ },
		"the machine restarted":  func(r *Record) { r.Boot = "another" },
		"there is no such id":    func(r *Record) { r.PID = 1 << 30 },
		"the record is empty":    func(r *Record) { *r = Record{} },
		"it is the init process": func(r *Record) { r.PID = 1 },
	} {
		r := self
		change(&r)
		if r.Alive() {
			t.Errorf("alive although %s", what)
		}
	}
}

func TestReadOfAMissingOrDamagedRecordIsNoProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	if r := Read(path); r.Alive() || r != (Record{}) {
		t.Errorf("missing file: %v", r)
	}
	if err := os.WriteFile(path, []byte(`{"pid": 1`), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := Read(path); r != (Record{}) {
		t.Errorf("damaged file: %v", r)
	}
	want := Record{Name: "etcd", PID: 7, Start: 8, Boot: "b"}
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	if got := Read(path); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBelongs(t *testing.T) {
	const state = "/repo/out/cluster"
	for commandLine, want := range map[string]bool{
		"/repo/out/bin/etcd --data-dir=/repo/out/cluster/etcd":                                      true,
		"/repo/out/bin/containerd-shim-runc-v2 -address /repo/out/cluster/run/containerd.sock":      true,
		"/usr/sbin/runc --root /repo/out/cluster/run/runc/k8s.io create":                            true,
		"/repo/out/bin/etcd --data-dir=/tmp/envtest":                                                false,
		"/repo/out/bin/kubectl --kubeconfig /repo/out/cluster/admin.conf get pods":                  false,
		"vim /repo/out/cluster/config/kubelet.yaml":                                                 false,
		"/other/out/bin/kubelet --config /other/out/cluster/config/kubelet.yaml":                    false,
		"/repo/out/bin/kubelet --config /repo/out/cluster-two/config/kubelet.yaml":                  false,
		"/usr/bin/containerd-shim-runc-v2 -namespace moby -address /run/containerd/containerd.sock": false,
		"": false,
	} {
		if got := belongs(strings.Fields(commandLine), state); got != want {
			t.Errorf("%q: %v, want %v", commandLine, got, want)
		}
	}
}

// TestMain lets the test binary be the process that tests start and stop.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCESS_TEST") {
	case "obey":
		wait()
	case "ignore":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		wait()
	}
	os.Exit(m.Run())
}

// wait for a signal that ends the process. (An empty select would end it at once: Go takes it for a deadlock.)
func wait() {
	for {
		_ = syscall.Pause()
	}
}

func startSelf(t *testing.T, behaviour string) (Record, string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	r, err := Start(Spec{Name: behaviour, Path: os.Args[0], Env: []string{"PROCESS_TEST=" + behaviour}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Signal(syscall.SIGKILL, []Record{r}) })
	return r, log
}

func TestStopKillsWhatDoesNotEndByItself(t *testing.T) {
	stubborn, log := startSelf(t, "ignore")
	obedient, _ := startSelf(t, "obey")
	err := Until(context.Background(), 10*time.Second, "waiting for the process", func(context.Context) error {
		if content, _ := os.ReadFile(log); !strings.Contains(string(content), "ready") {
			return errors.New("it has not said that it is ready")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Stop(context.Background(), 100*time.Millisecond, []Record{stubborn, obedient}); err != nil {
		t.Fatal(err)
	}
	if stubborn.Alive() || obedient.Alive() {
		t.Error("a process survived")
	}
}

func TestUntilGivesTheLastReason(t *testing.T) {
	reason := errors.New("the reason")
	err := Until(context.Background(), 2*interval, "waiting", func(context.Context) error { return reason })
	if !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	calls := 0
	err = Until(context.Background(), time.Hour, "waiting", func(context.Context) error { calls++; return Fatal(reason) })
	if !errors.Is(err, reason) || calls != 1 {
		t.Errorf("a fatal error did not end the wait: %v after %d calls", err, calls)
	}
}
