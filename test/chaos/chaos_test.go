package chaos

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// defaultDuration of all scenarios together.
const defaultDuration = 2 * time.Minute

// setting is a variable of the environment, or the value that it has otherwise.
func setting[T any](t *testing.T, name string, otherwise T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	v, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// dice are random numbers that goroutines may share.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *dice) between(least, most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return least + time.Duration(d.r.Int64N(int64(most-least)))
}

// TestChaos: one server and three, each for half of the time.
func TestChaos(t *testing.T) {
	duration := setting(t, "METIP_CHAOS_DURATION", defaultDuration, time.ParseDuration)
	seed := setting(t, "METIP_CHAOS_SEED", rand.Uint64(), func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
	t.Logf("METIP_CHAOS_SEED=%d METIP_CHAOS_DURATION=%s", seed, duration)
	b := build(t)
	for i, scenario := range []struct {
		name    string
		servers int
	}{{"one server", 1}, {"three servers", 3}} {
		t.Run(scenario.name, func(t *testing.T) {
			d := &dice{r: rand.New(rand.NewPCG(seed, uint64(i)))}
			w := newWorld(t, b, scenario.servers, d)
			load := startLoad(t, w)
			ctx, cancel := context.WithTimeout(t.Context(), duration/2)
			w.unleash(ctx)
			cancel()
			w.heal()
			load.end()
			verdict(t, w, load)
		})
	}
}
