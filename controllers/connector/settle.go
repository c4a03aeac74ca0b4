package connector

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// settleTime is how long a sink's configuration must stay the same before it is rolled out, or 50 Routes would make 50 rolls.
	settleTime = 2 * time.Second
	// settleLimit is how long changes that do not end can hold a roll back.
	settleLimit = 10 * time.Second
)

// settler holds back configurations that have just changed.
type settler struct {
	mu      sync.Mutex
	pending map[types.NamespacedName]settling
}

type settling struct {
	hash         string
	first, since time.Time
}

func newSettler() *settler { return &settler{pending: map[types.NamespacedName]settling{}} }

// wait is how long the wanted configuration must still be held back; zero means not at all.
func (s *settler) wait(key types.NamespacedName, wanted, deployed string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wanted == deployed {
		delete(s.pending, key)
		return 0
	}
	p, ok := s.pending[key]
	if !ok {
		p.first = now
	}
	if p.hash != wanted {
		p.hash, p.since = wanted, now
		s.pending[key] = p
	}
	if now.Sub(p.first) >= settleLimit {
		return 0
	}
	return max(0, settleTime-now.Sub(p.since))
}

func (s *settler) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, key)
}
