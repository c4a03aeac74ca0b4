package engine

// Bounds of what a destination remembers of messages that it no longer holds.
const (
	rememberSettled  = 4096
	rememberAttempts = 16384
	// unexplained deliveries are those that may have ended without an attempt (a pod that died or was drained); only what the broker
	// counts beyond them is taken for attempts that this pod does not remember.
	unexplained = 5
)

// identity of a message: its sequence, and when it was stored, for sequences begin again when a stream is made anew.
type identity struct {
	seq uint64
	at  int64
}

// memory of a destination: which messages are settled though the broker may not have heard it, and how often others were tried.
type memory struct {
	done map[identity]struct{}
	ring []identity
	next int
	// remember is the bound of done.
	remember int
	tries    map[identity]attempts
	// delays: the destination has a step that gives messages back until a time, so that the broker's count says nothing of attempts.
	delays bool
}

// attempts of one message that waits on the broker for the next one.
type attempts struct {
	tried int
	seen  int64
	alone bool
	dead  *deadLetter
	// progress of its parts, where it is split.
	progress *progress
}

func newMemory() memory {
	return memory{remember: rememberSettled, done: map[identity]struct{}{}, tries: map[identity]attempts{}}
}

// settle remembers that a message needs nothing more but perhaps another acknowledgement.
func (m *memory) settle(id identity) {
	delete(m.tries, id)
	if len(m.ring) < m.remember {
		m.ring = append(m.ring, id)
	} else {
		delete(m.done, m.ring[m.next])
		m.ring[m.next] = id
		m.next = (m.next + 1) % m.remember
	}
	m.done[id] = struct{}{}
}

// forgetSettled: what was done may have been undone.
func (m *memory) forgetSettled() {
	clear(m.done)
	m.ring, m.next = m.ring[:0], 0
}

func (m *memory) settled(id identity) bool {
	_, ok := m.done[id]
	return ok
}

// keep what is known of a message that goes back to the broker for a while.
func (m *memory) keep(h *held) {
	if len(m.tries) >= rememberAttempts {
		for id := range m.tries {
			delete(m.tries, id)
			break
		}
	}
	m.tries[h.identity] = attempts{h.tried, h.seen, h.alone, h.dead, h.progress}
}

// recall what is known of a message that has come. One that this pod knows nothing of has been tried by others at most as often as it
// was delivered.
func (m *memory) recall(h *held) {
	if !m.delays {
		h.tried = max(0, int(min(h.delivered, 1<<30))-1-unexplained)
	}
	if a, ok := m.tries[h.identity]; ok {
		h.tried, h.seen, h.alone, h.dead, h.progress = max(h.tried, a.tried), a.seen, a.alone, a.dead, a.progress
	}
}
