package bus

import "k8s.io/apimachinery/pkg/types"

// ClaimCount is what is known of an Integration's claim checks: those that are stored, as of the last look that read everything, and those that
// were removed since the session began.
type ClaimCount struct {
	Held, Dropped           int
	HeldBytes, DroppedBytes int64
}

func (t *trimmer) countHeld(x *claimIndex) {
	held, bytes := len(x.claims), int64(0)
	for _, c := range x.claims {
		bytes += c.bytes
	}
	t.count(x, func(n *ClaimCount) { n.Held, n.HeldBytes = held, bytes })
}

func (t *trimmer) countDropped(x *claimIndex, bytes int64) {
	t.count(x, func(n *ClaimCount) { n.Dropped, n.DroppedBytes = n.Dropped+1, n.DroppedBytes+bytes })
}

func (t *trimmer) count(x *claimIndex, change func(*ClaimCount)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := types.NamespacedName{Namespace: x.namespace, Name: x.integration}
	n := t.counts[key]
	change(&n)
	t.counts[key] = n
}

func (t *trimmer) forgetClaims(x *claimIndex) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.counts, types.NamespacedName{Namespace: x.namespace, Name: x.integration})
}

// ClaimCounts calls f for every Integration that has claim checks, on all brokers that answer.
func (r *Registry) ClaimCounts(f func(integration types.NamespacedName, n ClaimCount)) {
	r.mu.Lock()
	var live []*session
	for _, s := range r.sessions {
		if s.session.connection().Live {
			live = append(live, s.session)
		}
	}
	r.mu.Unlock()
	counts := map[types.NamespacedName]ClaimCount{}
	for _, s := range live {
		s.trimmer.mu.Lock()
		for key, n := range s.trimmer.counts {
			all := counts[key] // one that has moved to another broker is at both for a while
			counts[key] = ClaimCount{
				Held: all.Held + n.Held, HeldBytes: all.HeldBytes + n.HeldBytes, Dropped: all.Dropped + n.Dropped, DroppedBytes: all.DroppedBytes + n.DroppedBytes,
			}
		}
		s.trimmer.mu.Unlock()
	}
	for key, n := range counts {
		f(key, n)
	}
}
