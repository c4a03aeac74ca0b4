package bus

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// lagTolerance is how long a copy may be behind before it is worth a word: under load a copy is behind for moments all the time.
const lagTolerance = 10 * time.Second

// lagging remembers since when copies of streams are not current.
type lagging struct {
	mu    sync.Mutex
	since map[string]time.Time
}

func newLagging() *lagging { return &lagging{since: map[string]time.Time{}} }

// observe a stream, and list its copies that have not been current for a while, as "stream on server".
func (l *lagging) observe(info *jetstream.StreamInfo, now time.Time) []string {
	if info.Cluster == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var late []string
	for _, peer := range info.Cluster.Replicas {
		key := info.Config.Name + " on " + peer.Name
		if peer.Current && !peer.Offline {
			delete(l.since, key)
			continue
		}
		if _, seen := l.since[key]; !seen {
			l.since[key] = now
		}
		if now.Sub(l.since[key]) >= lagTolerance {
			late = append(late, key)
		}
	}
	return late
}
