package cluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Process of a pod's container on this machine, which is the local cluster's node.
type Process struct {
	PID     int
	Command string
}

// Processes of a pod, its sandbox's excepted. Only the local cluster's can be seen.
func (c *Cluster) Processes(ctx context.Context, namespace, pod string) ([]Process, error) {
	if !c.Local {
		return nil, fmt.Errorf("processes can be seen on the local cluster only")
	}
	object, err := c.Clientset.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// the cgroup's path holds the pod's UID
		cgroup, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cgroup"))
		if err != nil || !strings.Contains(string(cgroup), string(object.UID)) {
			continue
		}
		command, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if name := strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " "); err == nil && name != "" && !strings.HasPrefix(name, "/pause") {
			found = append(found, Process{pid, name})
		}
	}
	return found, nil
}

// Kill -9 every process of a pod's containers. It is an error when there is none.
func (c *Cluster) Kill(ctx context.Context, namespace, pod string) error {
	processes, err := c.Processes(ctx, namespace, pod)
	if err != nil {
		return err
	}
	if len(processes) == 0 {
		return fmt.Errorf("pod %s/%s has no process", namespace, pod)
	}
	for _, p := range processes {
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill -9 %d (%s): %w", p.PID, p.Command, err)
		}
	}
	return nil
}

// ResidentBytes of a process (VmRSS), and those of them that are its own (RssAnon): the others are pages of its program's file, which all pods of
// a node share, and of which the kernel keeps as many as it likes.
func (p Process) ResidentBytes() (all, own int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			all = kib << 10
		case "RssAnon:":
			own = kib << 10
		}
	}
	return all, own, nil
}

// Started is when the process began, to a hundredth of a second.
func (p Process) Started() (time.Time, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return time.Time{}, err
	}
	boot, err := bootTime()
	if err != nil {
		return time.Time{}, err
	}
	// the command may hold blanks; field 22 counts from after its closing bracket
	after := string(stat)[strings.LastIndexByte(string(stat), ')')+1:]
	fields := strings.Fields(after)
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("/proc/%d/stat is not understood", p.PID)
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	const ticksPerSecond = 100
	return boot.Add(time.Duration(ticks) * time.Second / ticksPerSecond), err
}

// bootTime by the clock and the time that has passed since, which is finer than /proc/stat's btime.
func bootTime() (time.Time, error) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	return time.Now().Add(-time.Duration(seconds * float64(time.Second))), err
}
