package engine

import (
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nuid"
)

// Where servers flush their disks before every acknowledgement, a flush serves one message or one atomic batch. So messages are published
// singly while few wait, and everything that waits as one batch when many do; how many are many depends on the disk. What arrives while a batch
// is under way is the next one, together with the rest of a crowd (see crowd).
const (
	maxBatchMessages = 1000
	maxBatchBytes    = 8 << 20
	// A batch is made once as many messages wait as can be published singly in the time that a batch takes. Both times are measured;
	// until they are, and within these bounds, it is firstWorth.
	minWorth, firstWorth, maxWorth = 3, 16, 64

	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// batches decides what is published singly and what in batches.
type batches struct {
	p  *publisher
	id string

	mu sync.Mutex
	// queue of what is not published yet, in order.
	queue []*publication
	// singles that are under way; batching while a batch is.
	singles  int
	batching bool
	made     uint64
	wake     chan struct{}

	// worth is how many messages make a batch worth it, and how many singles are under way at most. It follows from what a single and a
	// batch cost the server, as running means.
	worth                 int
	singleCost, batchCost time.Duration
	// window in which singles are counted: their confirmations come in bursts, so that only many of them tell what one costs.
	windowBegun, lastSingle time.Time
	windowCount             int
	crowd                   crowd
}

// window of singles that make one measure.
const window = 16

func newBatches(p *publisher) *batches {
	return &batches{p: p, id: nuid.Next(), wake: make(chan struct{}, 1), worth: firstWorth}
}

// submit the messages of one call that are not stored: one at once where nothing is in its way, else by run.
func (b *batches) submit(g *group, n int) {
	b.mu.Lock()
	b.crowd.arrive(n)
	if n == 1 && !b.batching && len(b.queue) == 0 && b.singles < b.worth && !b.gathers() {
		b.beginSingle()
		b.mu.Unlock()
		for i := range g.items {
			if item := &g.items[i]; !item.stored {
				b.single(item)
				return // after that the group may be another call's
			}
		}
		return
	}
	for i := range g.items {
		if item := &g.items[i]; !item.stored {
			b.queue = append(b.queue, item)
		}
	}
	lingers := !b.crowd.waits.IsZero() && !b.crowd.complete() && len(b.queue) < maxBatchMessages
	wake := !b.batching && !lingers && (b.singles < b.worth || len(b.queue) >= b.worth)
	b.mu.Unlock()
	if wake {
		b.signal()
	}
}

func (b *batches) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// beginSingle counts one more under way. The caller holds the lock.
func (b *batches) beginSingle() {
	if b.singles == 0 {
		b.windowBegun, b.windowCount = time.Now(), 0
	}
	b.singles++
}

func (b *batches) single(item *publication) {
	if _, err := b.p.replies.publish(&item.Msg, item); err != nil {
		item.confirm(false, err)
	}
}

// singleDone: one of the singles has its outcome.
func (b *batches) singleDone() {
	now := time.Now()
	b.mu.Lock()
	b.singles--
	b.crowd.leave(1)
	b.lastSingle = now
	if b.windowCount++; b.windowCount >= window || b.singles == 0 {
		// What a batch and singles take together says nothing of either.
		if !b.batching {
			b.singleCost = mean(b.singleCost, now.Sub(b.windowBegun)/time.Duration(b.windowCount))
			b.weigh()
		}
		b.windowBegun, b.windowCount = now, 0
	}
	wake := len(b.queue) > 0 && !b.batching && b.crowd.waits.IsZero()
	b.mu.Unlock()
	if wake {
		b.signal()
	}
}

// batchDone measures a batch that was stored: from when it was sent, or from when the last single before it was confirmed. The caller
// holds the lock.
func (b *batches) batchDone(sent, now time.Time) {
	if b.lastSingle.After(sent) {
		sent = b.lastSingle
	}
	b.batchCost = mean(b.batchCost, now.Sub(sent))
	b.windowBegun, b.windowCount = now, 0
	b.weigh()
}

func (b *batches) weigh() {
	if b.singleCost > 0 && b.batchCost > 0 {
		b.worth = max(minWorth, min(int(b.batchCost/b.singleCost)+1, maxWorth))
	}
}

// mean is a running mean; a single measure counts at most eightfold.
func mean(old, sample time.Duration) time.Duration {
	if old == 0 {
		return max(sample, time.Microsecond)
	}
	return max(old+(min(sample, 8*old)-old)/8, time.Microsecond)
}

// withdraw what a group has in the queue.
func (b *batches) withdraw(g *group, err error) {
	var gone []*publication
	b.mu.Lock()
	kept := b.queue[:0]
	for _, item := range b.queue {
		if item.group == g {
			gone = append(gone, item)
		} else {
			kept = append(kept, item)
		}
	}
	clear(b.queue[len(kept):])
	b.queue = kept
	b.crowd.leave(len(gone))
	b.mu.Unlock()
	for _, item := range gone {
		item.finish(false, err)
	}
}

// run publishes what waits, until stop is closed.
func (b *batches) run(stop <-chan struct{}) {
	lingers := time.NewTimer(time.Hour)
	defer lingers.Stop()
	for {
		select {
		case <-stop:
			return
		case <-b.wake:
		case <-lingers.C:
		}
		for {
			item, batch, wait := b.next(time.Now())
			if wait > 0 {
				lingers.Reset(wait)
			}
			if item == nil && batch == nil {
				break
			}
			if item != nil {
				b.single(item)
			} else {
				b.publish(batch)
			}
		}
	}
}

// next gives what is to be published now: one message, or a batch, or how long to wait for more.
func (b *batches) next(now time.Time) (*publication, *batch, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		b.crowd.disperse()
	}
	if b.batching || len(b.queue) == 0 {
		return nil, nil, 0
	}
	if wait := b.linger(now); wait > 0 {
		return nil, nil, wait
	}
	if n := b.batchable(); n >= b.worth {
		b.batching = true
		b.crowd.disperse()
		b.made++
		batch := &batch{owner: b, id: b.id + strconv.FormatUint(b.made, 36), items: append([]*publication(nil), b.queue[:n]...)}
		b.drop(n)
		return nil, batch, 0
	}
	if b.singles >= b.worth {
		return nil, nil, 0
	}
	item := b.queue[0]
	b.drop(1)
	b.beginSingle()
	return item, nil, 0
}

// batchable is how many messages at the front of the queue make one batch.
func (b *batches) batchable() int {
	size := 0
	for i, item := range b.queue {
		if size += item.size; item.alone || i == maxBatchMessages || size > maxBatchBytes {
			return i
		}
	}
	return len(b.queue)
}

// drop the first n of the queue, whose place in memory is used again.
func (b *batches) drop(n int) {
	rest := copy(b.queue, b.queue[n:])
	clear(b.queue[rest:])
	b.queue = b.queue[:rest]
}

// batch is one atomic batch under way.
type batch struct {
	owner *batches
	id    string
	items []*publication
	// sent is when its last message was.
	sent time.Time
}

func (b *batches) publish(batch *batch) {
	last := len(batch.items) - 1
	for i, item := range batch.items {
		item.Header[headerBatchID] = []string{batch.id}
		item.Header[headerBatchSequence] = []string{strconv.Itoa(i + 1)}
		item.Reply = ""
		if i < last {
			if err := b.p.replies.nc.PublishMsg(&item.Msg); err != nil {
				batch.confirm(false, err)
				return
			}
		}
	}
	commit := batch.items[last]
	commit.Header[headerBatchCommit] = []string{"1"}
	batch.sent = time.Now()
	if _, err := b.p.replies.publish(&commit.Msg, batch); err != nil {
		batch.confirm(false, err)
	}
}

// confirm the outcome of the whole batch. One that was refused as a batch (a message in it is stored already, another batch is in the
// way, the server lost it) is published singly, with the same ids.
func (b *batch) confirm(_ bool, err error) {
	for _, item := range b.items {
		delete(item.Header, headerBatchID)
		delete(item.Header, headerBatchSequence)
		delete(item.Header, headerBatchCommit)
		item.alone = true
	}
	o := b.owner
	o.p.metrics.batch.Observe(float64(len(b.items)))
	again := err != nil && isCode(err, codeBatchDuplicate, codeBatchIncomplete, codeBatchTooMany)
	o.mu.Lock()
	o.batching = false
	if err == nil {
		o.batchDone(b.sent, time.Now())
	}
	if again {
		o.queue = append(b.items, o.queue...)
	} else {
		o.crowd.leave(len(b.items))
	}
	wake := len(o.queue) > 0
	o.mu.Unlock()
	if wake {
		o.signal()
	}
	if again {
		return
	}
	for _, item := range b.items {
		item.finish(false, err)
	}
}
