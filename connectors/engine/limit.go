package engine

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// garbagePercent is how far the heap may grow between two collections. What a connector keeps is little and what it makes for each message
// is garbage at once, so that at Go's own 100 a tenth of the processor's time goes into collections; at 250 the process takes
// 5 MiB more under load.
const garbagePercent = 250

// What the process has freed goes back to the system after the start, and then once a minute while less than atRest bytes were allocated in
// it: the runtime by itself keeps as much as its heap may grow to, which at garbagePercent is 10 MiB.
const (
	startSettles = time.Second
	restInterval = time.Minute
	atRest       = 16 << 20
)

// freeAtRest gives memory back if less than atRest bytes were allocated since the last time, and comes again.
func freeAtRest(before uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	allocated := sample[0].Value.Uint64()
	if before == 0 || allocated-before < atRest {
		debug.FreeOSMemory()
	}
	time.AfterFunc(restInterval, func() { freeAtRest(allocated) })
}

// LimitMemory tells the Go runtime of the container's limit, so that it collects garbage rather than being killed, lets the heap, which is
// small, grow by garbagePercent, and gives memory back while the process rests. The environment has precedence. A program calls it once, before it runs an Engine.
func LimitMemory() {
	time.AfterFunc(startSettles, func() { freeAtRest(0) })
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
