package conformance

import (
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
)

const (
	// memoryBound is what a system may hold of messages under way, whatever their number: a pod has 256 MiB.
	memoryBound = 96 << 20
	// idleFor is how long an idle system is watched, and idleCPU the processor time that it may take meanwhile.
	idleFor = 2 * time.Second
	idleCPU = 150 * time.Millisecond
	// idleGoroutines that a system may have.
	idleGoroutines = 24
)

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// processor time that this process has taken.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// wantIdle asks that the process takes next to no processor time while nothing happens. What the test's own servers in the process do
// counts too, and so does what other tests have left, so that the best of a few looks is taken.
func wantIdle(t *testing.T) {
	t.Helper()
	best := idleFor
	for range 5 {
		before := processor(t)
		time.Sleep(idleFor) // that is what is measured
		if best = min(best, processor(t)-before); best <= idleCPU {
			return
		}
	}
	t.Errorf("idle, it takes %s of processor time in %s", best, idleFor)
}

func pullIdle(t *testing.T, h *PullHarness) {
	before := runtime.NumGoroutine()
	r := h.run(t, &fakes.Publisher{})
	r.wantUp(t)
	h.Put(t, 0, 1, 100)
	r.wantStored(t, 0, 1)
	wantIdle(t)
	if n := runtime.NumGoroutine() - before; n > idleGoroutines {
		t.Errorf("idle, it has %d goroutines", n)
	}
	started := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > 10*time.Second { // well below what a drain may take
		t.Errorf("it took %s to end", took)
	}
	r.wantLeft(t, 0)
	fakes.Eventually(t, pullWithin, "its goroutines have ended", func() bool { return working() == 0 })
}

// working is how many goroutines are in the code of systems.
func working() int {
	buffer := make([]byte, 4<<20)
	stacks := string(buffer[:runtime.Stack(buffer, true)])
	n := 0
	for stack := range strings.SplitSeq(stacks, "\n\n") {
		if strings.Contains(stack, "/connectors/systems/") {
			n++
		}
	}
	return n
}

func pullLarge(t *testing.T, h *PullHarness) {
	largest := h.Largest
	if largest == 0 {
		largest = contract.MaxMessageSize - 1024
	}
	before := heap()
	bus := &fakes.Publisher{}
	release := bus.Hold()
	r := h.run(t, bus)
	const messages = 48
	for i := range messages {
		h.Put(t, i, i+1, max(1, largest/2))
	}
	fakes.Eventually(t, pullWithin, "messages are being published", func() bool { n, _ := bus.Waiting(); return n > 0 })
	time.Sleep(time.Second) // time to take in too much
	if used := heap() - before; used > memoryBound {
		t.Errorf("with %d messages of %d bytes waiting it takes %d MiB, more than %d", messages, largest/2, used>>20, memoryBound>>20)
	}
	release()
	r.wantStored(t, 0, messages)
	h.Put(t, messages, messages+1, largest)
	r.wantStored(t, 0, messages+1)
	r.wantEnd(t, 0)
}
