package process

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Record identifies one process for as long as it lives and nothing else afterwards.
type Record struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
}

// Identify makes the record of a live process.
func Identify(name string, pid int) (Record, error) {
	s, err := readStat(pid)
	if err != nil {
		return Record{}, fmt.Errorf("process %d of %s: %w", pid, name, err)
	}
	return Record{Name: name, PID: pid, Start: s.start, Boot: bootID()}, nil
}

// Alive tells whether the very process that was recorded still runs.
func (r Record) Alive() bool {
	if r.PID <= 1 {
		return false
	}
	s, err := readStat(r.PID)
	return err == nil && s.start == r.Start && r.Boot == bootID()
}

// String names the process for a message.
func (r Record) String() string { return fmt.Sprintf("%s (pid %d)", r.Name, r.PID) }

// Write saves the record.
func (r Record) Write(path string) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o644)
}

// Read loads a record; one that is missing or damaged is that of no process.
func Read(path string) Record {
	var r Record
	content, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(content, &r) != nil {
		return Record{}
	}
	return r
}

// programs are what the cluster runs. Anything else that names the cluster's folder (a user's kubectl, an editor) is
// not part of it.
var programs = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
	"containerd", "containerd-shim-runc-v2", "coredns", "runc", "ctr",
}

// Find lists the live processes of the cluster whose state is in the folder, recorded or not.
func Find(state string) []Record {
	var found []Record
	for _, pid := range all() {
		args := arguments(pid)
		if !belongs(args, state) {
			continue
		}
		if r, err := Identify(filepath.Base(args[0]), pid); err == nil {
			found = append(found, r)
		}
	}
	return found
}

// belongs decides by a command line whether the process is one of the cluster's.
func belongs(args []string, state string) bool {
	if len(args) == 0 || !slices.Contains(programs, filepath.Base(args[0])) {
		return false
	}
	return slices.ContainsFunc(args[1:], func(arg string) bool { return strings.Contains(arg, state+"/") })
}
