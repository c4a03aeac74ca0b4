package engine

import (
	"testing"
	"time"
)

// crowded are batches of a publisher that flushes for each single in 1 ms and for each batch in 8 ms: a batch is worth it for 9.
func crowded(usual int) *batches {
	b := newBatches(&publisher{})
	b.singleCost, b.batchCost = time.Millisecond, 8*time.Millisecond
	b.weigh()
	b.crowd.usual = usual
	return b
}

// come puts messages into the queue, and asks what is to be done.
func (b *batches) come(n int, now time.Time) (single, batched int, wait time.Duration) {
	g := &group{items: make([]publication, n)}
	for i := range g.items {
		b.queue = append(b.queue, &g.items[i])
	}
	b.crowd.arrive(n)
	item, batch, wait := b.next(now)
	if item != nil {
		single = 1
	}
	if batch != nil {
		batched = len(batch.items)
	}
	return single, batched, wait
}

func TestABatchWaitsForTheCrowd(t *testing.T) {
	b, now := crowded(32), time.Unix(0, 0)
	if s, n, wait := b.come(16, now); s+n != 0 || wait != 2*time.Millisecond {
		t.Fatalf("half of the crowd: %d singly, %d in a batch, waits %s", s, n, wait)
	}
	if s, n, wait := b.come(1, now.Add(time.Millisecond)); s+n != 0 || wait != time.Millisecond {
		t.Fatalf("one more: %d singly, %d in a batch, waits %s", s, n, wait)
	}
	if s, n, wait := b.come(12, now.Add(time.Millisecond)); s != 0 || n != 29 || wait != 0 {
		t.Fatalf("all but stragglers: %d singly, %d in a batch, waits %s", s, n, wait)
	}
}

func TestABatchDoesNotWaitForThoseWhoDoNotCome(t *testing.T) {
	b, now := crowded(32), time.Unix(0, 0)
	b.come(4, now)
	now = now.Add(2 * time.Millisecond)
	for left := 4; left > 0; left-- { // too few for a batch: all of them singly, at once
		if s, n, wait := b.come(0, now); s != 1 || n != 0 || wait != 0 {
			t.Fatalf("%d left: %d singly, %d in a batch, waits %s", left, s, n, wait)
		}
	}
	if b.crowd.usual >= 32 {
		t.Errorf("the crowd is still %d", b.crowd.usual)
	}
	b.crowd.leave(4)
	b.singles = 0
	for range 20 { // and soon nobody waits any more
		b.come(0, now)
		b.come(1, now)
		now = now.Add(2 * time.Millisecond)
		b.come(0, now)
		b.crowd.leave(1)
		b.singles = 0
	}
	if s, _, wait := b.come(1, now); s != 1 || wait != 0 {
		t.Errorf("after the crowd has gone: %d singly, waits %s; %+v", s, wait, b.crowd)
	}
}

func TestOneWaitsForABurstAndNoMore(t *testing.T) {
	b, now := crowded(32), time.Unix(0, 0)
	if _, _, wait := b.come(1, now); wait == 0 {
		t.Fatal("the first after a burst does not wait")
	}
	now = now.Add(2 * time.Millisecond)
	b.come(0, now)
	b.crowd.leave(1)
	b.singles = 0
	b.come(0, now)
	if s, _, wait := b.come(1, now); s != 1 || wait != 0 {
		t.Errorf("the second: %d singly, waits %s; %+v", s, wait, b.crowd)
	}
}

func TestFewCallersNeverWait(t *testing.T) {
	b, now := crowded(0), time.Unix(0, 0)
	for range 8 {
		if s, n, wait := b.come(1, now); s != 1 || n != 0 || wait != 0 {
			t.Fatalf("%d singly, %d in a batch, waits %s", s, n, wait)
		}
	}
	// A call with many messages is a crowd by itself.
	if s, n, wait := crowded(0).come(500, now); s != 0 || n != 500 || wait != 0 {
		t.Fatalf("%d singly, %d in a batch, waits %s", s, n, wait)
	}
}

func TestWhatIsWithdrawnLeavesNobodyWaiting(t *testing.T) {
	b, now := crowded(32), time.Unix(0, 0)
	b.come(3, now)
	g := &group{items: make([]publication, 2), done: make(chan struct{}, 1)}
	for i := range g.items {
		g.items[i].group = g
	}
	g.left.Store(2)
	b.queue = []*publication{&g.items[0], &g.items[1]}
	b.withdraw(g, nil)
	if s, n, wait := b.come(0, now.Add(time.Millisecond)); s+n != 0 || wait != 0 {
		t.Fatalf("an empty queue: %d singly, %d in a batch, waits %s", s, n, wait)
	}
	if !b.crowd.waits.IsZero() {
		t.Error("an empty queue waits")
	}
}
