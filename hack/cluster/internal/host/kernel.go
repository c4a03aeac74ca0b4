package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Pods on one bridge reach each other through Services only if bridged packets pass the packet filter, too.
const bridgeFilter = "net/bridge/bridge-nf-call-iptables"

// settings are the kernel settings that the cluster needs; a higher number than ours is kept.
var settings = []struct {
	key     string
	value   int
	atLeast bool
}{
	{"net/ipv4/ip_forward", 1, false},
	{bridgeFilter, 1, false},
	// All pods of one user id share these.
	{"fs/inotify/max_user_instances", 8192, true},
	{"fs/inotify/max_user_watches", 524288, true},
}

// touched are settings that the kubelet changes by itself.
var touched = []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}

// TuneKernel changes the settings after it has saved what they and those that the kubelet changes were.
func TuneKernel(ctx context.Context, saved string) error {
	if _, err := os.Stat(settingPath(bridgeFilter)); err != nil {
		if _, err := run(ctx, "modprobe", "br_netfilter"); err != nil {
			return fmt.Errorf("the kernel has no br_netfilter, without which pods do not reach each other's Services: %w", err)
		}
	}
	before := map[string]string{}
	for _, key := range touched {
		if value, err := readSetting(key); err == nil {
			before[key] = value
		}
	}
	for _, s := range settings {
		value, err := readSetting(s.key)
		if err != nil {
			return err
		}
		before[s.key] = value
	}
	content, err := json.MarshalIndent(before, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(saved, content, 0o644); err != nil {
		return err
	}
	for _, s := range settings {
		if current, err := strconv.Atoi(before[s.key]); err == nil && (current == s.value || s.atLeast && current > s.value) {
			continue
		}
		if err := writeSetting(s.key, strconv.Itoa(s.value)); err != nil {
			return err
		}
	}
	return nil
}

// RestoreKernel puts the settings back as they were.
func RestoreKernel(saved string) error {
	content, err := os.ReadFile(saved)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	before := map[string]string{}
	if err != nil || json.Unmarshal(content, &before) != nil {
		return nil // a start that was cut short while it saved had changed nothing yet
	}
	var failed []error
	for key, value := range before {
		if current, err := readSetting(key); err == nil && current != value {
			failed = append(failed, writeSetting(key, value))
		}
	}
	return errors.Join(failed...)
}

func settingPath(key string) string { return filepath.Join("/proc/sys", key) }

func readSetting(key string) (string, error) {
	content, err := os.ReadFile(settingPath(key))
	return strings.TrimSpace(string(content)), err
}

func writeSetting(key, value string) error {
	return os.WriteFile(settingPath(key), []byte(value), 0o644)
}
