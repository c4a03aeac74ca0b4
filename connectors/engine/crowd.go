package engine

import "time"

// A batch costs the disk as much as some messages that are published singly. Callers that wait for each answer come in a crowd: those whom
// a batch releases are back a moment after it, and miss the next one if that does not wait, so that each batch has half of them. Hence, where
// there is a crowd that is worth a batch, a batch waits for the rest of it, for a part of the time that it takes itself. Where there is none,
// nothing waits.
const (
	// lingerPart of the time that a batch takes is how long one waits for the crowd, at most maxLinger.
	lingerPart = 4
	maxLinger  = 2 * time.Millisecond
)

// crowd of the publications that there are at a time. It is guarded by its batches' lock.
type crowd struct {
	// present are submitted and have no outcome; usual is how many there were lately, at most.
	present, usual int
	// waits is since when the front of the queue has waited for the rest; zero while it does not. waited: it has, and what is in the queue
	// goes now.
	waits  time.Time
	waited bool
}

// arrive with some.
func (c *crowd) arrive(n int) {
	c.present += n
	c.usual = max(c.usual, c.present)
}

// leave with some that have their outcome.
func (c *crowd) leave(n int) { c.present -= n }

// complete but for some stragglers.
func (c *crowd) complete() bool { return 8*c.present >= 7*c.usual }

// disperse: what had waited is gone.
func (c *crowd) disperse() { c.waits, c.waited = time.Time{}, false }

// gathers tells whether a crowd that is worth a batch comes again and again: half as many again as a batch is worth, for the batch makes all of
// them wait.
func (b *batches) gathers() bool {
	return b.singleCost > 0 && b.batchCost > 0 && b.crowd.usual >= b.worth+b.worth/2
}

// linger is how long the front of the queue has still to wait for the rest of the crowd: zero if it is there, or has not come in time. The caller
// holds the lock; the queue is not empty.
func (b *batches) linger(now time.Time) time.Duration {
	c := &b.crowd
	switch {
	case c.waited || !b.gathers() || c.complete() || len(b.queue) >= maxBatchMessages:
		c.waits = time.Time{}
		return 0
	case c.waits.IsZero():
		c.waits = now
	}
	if left := min(b.batchCost/lingerPart, maxLinger) - now.Sub(c.waits); left > 0 {
		return left
	}
	c.waits, c.waited = time.Time{}, true
	if 2*c.present < c.usual { // these were a burst, or have gone
		c.usual = c.present
	} else { // fewer came than usual
		c.usual -= (c.usual - c.present + 3) / 4
	}
	return 0
}
