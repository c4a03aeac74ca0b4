package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Places outside the cluster's folder that the kubelet, containerd and the CNI library insist on.
const (
	containerLogs = "/var/log/containers"
	cniResults    = "/var/lib/cni/results"
	devicePlugins = "/var/lib/kubelet/device-plugins"
	shimSockets   = "/run/containerd/s"
)

// RemoveResidue removes from those places what belongs to the cluster whose state is in the folder, and then those
// of the places that are empty. The containers must be dead.
func RemoveResidue(state string) error {
	return errors.Join(
		removeIf(containerLogs, func(path string) bool {
			target, err := os.Readlink(path)
			return err == nil && below(target, state)
		}),
		removeIf(cniResults, func(path string) bool {
			content, err := os.ReadFile(path)
			return err == nil && bytes.Contains(content, []byte(state+"/"))
		}),
		removeShimSockets(state),
		removeDeviceSocket(state),
		removeEmpty(containerLogs),
		removeEmpty(cniResults, filepath.Dir(cniResults)),
		removeEmpty(devicePlugins, filepath.Dir(devicePlugins)),
		removeEmpty(shimSockets, filepath.Dir(shimSockets)),
	)
}

// Residue lists what RemoveResidue would have to remove, as far as it can be told from others' files.
func Residue(state string) []string {
	var left []string
	for _, dir := range []string{containerLogs, cniResults} {
		paths, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, path := range paths {
			target, _ := os.Readlink(path)
			content, _ := os.ReadFile(path)
			if below(target, state) || bytes.Contains(content, []byte(state+"/")) {
				left = append(left, "file "+path)
			}
		}
	}
	return left
}

// below tells whether a path leads into a folder.
func below(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

func removeIf(dir string, ours func(path string) bool) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if ours(path) {
			if err := remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeShimSockets removes the sockets of killed shims; each bundle says where its shim listened.
func removeShimSockets(state string) error {
	bundles, err := filepath.Glob(filepath.Join(state, "run", "containerd", "io.containerd.runtime.v2.task", "*", "*", "bootstrap.json"))
	if err != nil {
		return err
	}
	for _, file := range bundles {
		var bootstrap struct {
			Address string `json:"address"`
		}
		content, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(content, &bootstrap) != nil {
			continue
		}
		if socket, ok := strings.CutPrefix(bootstrap.Address, "unix://"); ok && filepath.Dir(socket) == shimSockets {
			if err := remove(socket); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeDeviceSocket removes the kubelet's socket for device plugins, whose path cannot be chosen.
func removeDeviceSocket(state string) error {
	if _, err := os.Stat(filepath.Join(state, "kubelet")); err != nil {
		return nil // no kubelet of ours has run
	}
	return remove(filepath.Join(devicePlugins, "kubelet.sock"))
}

// removeEmpty removes folders, the innermost first, for as long as they are empty.
func removeEmpty(dirs ...string) error {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 0 {
			return nil
		}
		if dir == shimSockets {
			// A container engine of the machine's own may be running with no container.
			if siblings, _ := os.ReadDir(filepath.Dir(dir)); len(siblings) > 1 {
				return nil
			}
		}
		if err := remove(dir); err != nil {
			return err
		}
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
