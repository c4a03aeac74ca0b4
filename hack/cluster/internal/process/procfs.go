package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const procRoot = "/proc"

// stat is what the kernel says about a process.
type stat struct {
	state byte   // R, S, D, Z, ...
	start uint64 // clock ticks between boot and the process's start
}

// parseStat reads /proc/<pid>/stat, whose second field is a name in parentheses that may hold anything.
func parseStat(content []byte) (stat, error) {
	i := bytes.LastIndexByte(content, ')')
	if i < 0 {
		return stat{}, fmt.Errorf("no process name in %q", content)
	}
	fields := strings.Fields(string(content[i+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("%d fields after the name in %q", len(fields), content)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return stat{state: fields[0][0], start: start}, err
}

// readStat fails when there is no such process; a zombie counts as none.
func readStat(pid int) (stat, error) {
	content, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	s, err := parseStat(content)
	if err == nil && (s.state == 'Z' || s.state == 'X') {
		return stat{}, os.ErrNotExist
	}
	return s, err
}

// bootID tells boots of the machine apart.
func bootID() string {
	content, _ := os.ReadFile(filepath.Join(procRoot, "sys/kernel/random/boot_id"))
	return strings.TrimSpace(string(content))
}

// arguments is a process's command line; empty for a kernel thread or a process that is gone.
func arguments(pid int) []string {
	content, _ := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "cmdline"))
	return strings.Split(strings.TrimRight(string(content), "\x00"), "\x00")
}

// all lists the ids of every process.
func all() []int {
	entries, _ := os.ReadDir(procRoot)
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
