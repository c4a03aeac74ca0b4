package steps

import (
	"context"
	"fmt"
	"runtime/metrics"
	"sync"
	"time"
)

// guard is the context of one run: it ends when its parent does, after maxTransformTime, or when the process's heap has
// grown by maxTransformGrowth since the program began to run for long.
type guard struct {
	context.Context
	done  chan struct{}
	timer *time.Timer

	mu      sync.Mutex
	begun   time.Time
	heap    uint64
	err     error
	running bool
}

// guards that have not ended a run serve the next.
var guards sync.Pool

func begin(ctx context.Context) *guard {
	g, again := guards.Get().(*guard)
	if !again {
		g = &guard{done: make(chan struct{})}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Context, g.begun, g.heap, g.running = ctx, time.Now(), 0, true
	if again {
		g.timer.Reset(watchEvery)
	} else {
		g.timer = time.AfterFunc(watchEvery, g.watch)
	}
	return g
}

// end of the run. A guard whose channel is closed serves no other.
func (g *guard) end() {
	g.timer.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running, g.Context = false, nil
	if g.err == nil {
		guards.Put(g)
	}
}

func (g *guard) Done() <-chan struct{} { return g.done }

func (g *guard) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *guard) watch() {
	heap := heapBytes()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running {
		return
	}
	if g.heap == 0 || heap < g.heap {
		g.heap = heap
	}
	switch ran := time.Since(g.begun); {
	case g.Context.Err() != nil:
		g.err = g.Context.Err()
	case ran > maxTransformTime:
		g.err = fmt.Errorf("%w: it ran for more than %s", ErrLimit, maxTransformTime)
	case heap-g.heap > maxTransformGrowth:
		g.err = fmt.Errorf("%w: it used more than %d MiB", ErrLimit, maxTransformGrowth>>20)
	default:
		g.timer.Reset(watchEvery)
		return
	}
	close(g.done)
}

// explain replaces gojq's error by the guard's when the guard ended the run.
func (g *guard) explain(err error) error {
	if e := g.Err(); e != nil {
		return e
	}
	return discreetJQ(err)
}

func heapBytes() uint64 {
	sample := [1]metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample[:])
	return sample[0].Value.Uint64()
}
