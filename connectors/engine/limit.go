package engine

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// garbagePercent is how far the heap may grow between two collections. What a connector keeps is little and what it makes for each message
// is garbage at once, so that at Go's own 100 a tenth of the processor's time goes into collections; at 250 the process takes
// 5 MiB more under load.
const garbagePercent = 250

// LimitMemory tells the Go runtime of the container's limit, so that it collects garbage rather than being killed, and lets the heap, which is
// small, grow by garbagePercent. The environment has precedence. A program calls it once, before it runs an Engine.
func LimitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	raw, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil || limit <= 0 {
		return
	}
	// The program's own pages count towards the container's limit and not towards Go's.
	debug.SetMemoryLimit(limit * 17 / 20)
}
