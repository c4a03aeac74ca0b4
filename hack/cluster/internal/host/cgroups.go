package host

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/process"
)

// cgroupRoots are our folder in each hierarchy of control groups: one in version 2, one a controller in version 1.
func cgroupRoots() []string {
	var roots []string
	for _, m := range mounts() {
		if m.kind == "cgroup" || m.kind == "cgroup2" {
			roots = append(roots, filepath.Join(m.point, layout.Network))
		}
	}
	return roots
}

// MakeCgroups makes the control group that all pods are below.
func MakeCgroups() error {
	for _, m := range mounts() {
		if m.kind != "cgroup" && m.kind != "cgroup2" {
			continue
		}
		dir := filepath.Join(m.point, layout.Network)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a control group (is %s writable in this container?): %w", m.point, err)
		}
		if m.kind == "cgroup2" {
			if err := enableControllers(m.point); err != nil {
				return err
			}
		}
		if err := inheritCPUSet(m.point, dir); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers hands the controllers of version 2 down to our group; a hybrid hierarchy has none.
func enableControllers(root string) error {
	available, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(available)) {
		err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		if err != nil && slices.Contains([]string{"cpu", "cpuset", "memory", "pids"}, controller) {
			return fmt.Errorf("enable the %s controller in %s: %w; inside a container this is often refused: run on the machine itself", controller, root, err)
		}
	}
	return nil
}

// inheritCPUSet fills in what version 1 leaves empty in a new group, which then takes no process.
func inheritCPUSet(root, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(strings.TrimSpace(string(content))) > 0 {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), parent, 0o644); err != nil {
			return fmt.Errorf("control group %s: %w", dir, err)
		}
	}
	return nil
}

// ContainerProcesses lists everything that runs in containers of the cluster.
func ContainerProcesses() []process.Record {
	seen := map[int]process.Record{}
	for _, root := range cgroupRoots() {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // groups vanish meanwhile
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			content, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(content)) {
				pid, err := strconv.Atoi(field)
				if err != nil || pid <= 1 {
					continue
				}
				if r, err := process.Identify("container process", pid); err == nil {
					seen[pid] = r
				}
			}
			return nil
		})
	}
	var records []process.Record
	for _, r := range seen {
		records = append(records, r)
	}
	return records
}

// KillContainers kills everything in containers; a process that forks meanwhile is met in the next round.
func KillContainers(ctx context.Context) error {
	return process.Until(ctx, 5*time.Second, "kill the containers' processes", func(context.Context) error {
		records := ContainerProcesses()
		process.Signal(syscall.SIGKILL, records)
		if len(records) > 0 {
			return fmt.Errorf("%d still there, among them %s", len(records), records[0])
		}
		return nil
	})
}

// RemoveCgroups removes our control groups, which must be empty; the kernel may need a moment to see that.
func RemoveCgroups(ctx context.Context) error {
	return process.Until(ctx, 5*time.Second, "remove the control groups", func(context.Context) error {
		var last error
		for _, root := range cgroupRoots() {
			var dirs []string
			filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // it may not exist
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				if err := syscall.Rmdir(dir); err != nil && err != syscall.ENOENT {
					last = fmt.Errorf("%s: %w", dir, err)
				}
			}
		}
		return last
	})
}

// CgroupLeftovers lists the groups that there still are.
func CgroupLeftovers() []string {
	var left []string
	for _, root := range cgroupRoots() {
		if _, err := os.Stat(root); err == nil {
			left = append(left, "control group "+root)
		}
	}
	return left
}
