package engine

import (
	"context"
	"math"
	"runtime/debug"
	"sync"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// What a sink's pod holds is bounded in bytes, whatever the sizes of messages: by two pools, one for messages that are held and one for bodies that
// are decoded and worked on, which take several times their size. The destinations of the pod share each pool such that none can take
// everything: the more is taken, the smaller the parts become. Small messages never wait for it.
const (
	// smallPull is what a destination may always ask for, so that the large messages of others never keep small ones away.
	smallPull = 256 << 10
	// largest message, as the broker counts it for a pull: with headers, subject and reply subject.
	largest = contract.MaxMessageSize + 2*contract.MaxHeaderSize
	// smallBody is what a message may have whose body is decoded without a permit.
	smallBody = 8 << 10
	// worstGrowth of a body that is decoded.
	worstGrowth = 48
	// maxWriteBytes of the messages that one call of the system gets, unless it is one message.
	maxWriteBytes = 4 << 20
	// defaultMemory is taken for the memory of the pod where nobody has set a limit.
	defaultMemory = 217 << 20
)

// memoryShares of a pod: a fifth of its memory for what is held, a third for what is decoded, and never less than the largest message needs.
func memoryShares(destinations int) (held, decoded *shares) {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		limit = defaultMemory
	}
	return newShares(max(limit/5, 2*largest), smallPull, destinations), newShares(max(limit/3, sdk.MaxDecoded+largest), 0, destinations)
}

func newShares(total, base int64, users int) *shares {
	p := &shares{total: total, base: base, users: users}
	p.freed.L = &p.mu
	return p
}

// shares of one pool of memory.
type shares struct {
	total, base int64
	users       int

	mu sync.Mutex
	// used is the sum of what all have beyond base.
	used int64
	// freed is signalled when something has become free; waiting are those who are told.
	freed   sync.Cond
	waiting []*share
}

// share of one destination.
type share struct {
	of   *shares
	use  int64
	wake func()
	// waits: wake is to be called when something has become free.
	waits bool
}

func (s *shares) join(wake func()) *share { return &share{of: s, wake: wake} }

func (s *shares) over(use int64) int64 { return max(0, use-s.base) }

// take n bytes if they are to be had; otherwise wake is called once when it is worth asking again.
func (s *share) take(n int64) bool {
	p := s.of
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.taken(n) {
		return true
	}
	if !s.waits {
		s.waits = true
		p.waiting = append(p.waiting, s)
	}
	return false
}

// taken says whether n bytes were to be had. The caller holds the lock of the pool.
func (s *share) taken(n int64) bool {
	p := s.of
	was, want := p.over(s.use), p.over(s.use+n)
	rest := p.total - (p.used - was)
	// Who has nothing yet may take all that is left; who has something leaves as much to the others.
	if want > 0 && (want > rest || p.users > 1 && was > 0 && want > rest/2) {
		return false
	}
	p.used += want - was
	s.use += n
	return true
}

// give n bytes back. A negative n takes what is there already, and cannot be refused.
func (s *share) give(n int64) {
	if n == 0 {
		return
	}
	p := s.of
	p.mu.Lock()
	was := p.over(s.use)
	s.use = max(0, s.use-n)
	p.used += p.over(s.use) - was
	woken := p.waiting
	p.waiting = nil
	for _, w := range woken {
		w.waits = false
	}
	p.freed.Broadcast()
	p.mu.Unlock()
	for _, w := range woken {
		go w.wake() // the caller may hold the lock of its destination
	}
}

// await takes n bytes as soon as they are to be had. It gives up, and returns false, when the context ends.
func (s *share) await(ctx context.Context, n int64) bool {
	p := s.of
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.taken(n) {
		return true
	}
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.freed.Broadcast()
	})
	defer stop()
	for ctx.Err() == nil {
		p.freed.Wait()
		if s.taken(n) {
			return true
		}
	}
	return false
}

// permit of a batch to decode its bodies, which is asked for when the first of them is to be decoded: for the worst that they can take, and less
// once it is known.
type permit struct {
	destination *destination

	mu sync.Mutex
	// undecoded is what the bodies may take that are not decoded yet, decoded what the others take, and taken what the pool was asked for.
	undecoded, decoded, taken int64
	begun                     bool
}

// worstDecoded is how much memory a body can take at most.
func worstDecoded(size int) int64 { return min(int64(size)*worstGrowth, sdk.MaxDecoded+int64(size)) }

// permitFor a batch; nil where none is needed.
func (d *destination) permitFor(batch []*held) *permit {
	var worst int64
	for _, h := range batch {
		if len(h.in.Data) > smallBody {
			worst += worstDecoded(len(h.in.Data))
		}
	}
	if worst == 0 {
		return nil
	}
	p := &permit{destination: d, undecoded: worst}
	for _, h := range batch {
		h.permit = p
	}
	return p
}

// settlePermit before a batch is written: an operation that looks into bodies must have it by then, for waiting is no time of the system's; any
// other needs it no more.
func (d *destination) settlePermit(p *permit, ready []*held) {
	if p == nil {
		return
	}
	if !d.opaque {
		p.begin()
		return
	}
	for _, h := range ready {
		h.message.SetData(h.message.Data)
	}
	p.end()
}

// begin waits until the bodies may be decoded. When the pod ends meanwhile it returns all the same.
func (p *permit) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return
	}
	p.begun = true
	if n := p.wanted(); p.destination.bodies.await(p.destination.sink.deliver, n) {
		p.taken = n
	}
}

func (p *permit) wanted() int64 { return min(p.undecoded+p.decoded, p.destination.sink.bodies.total) }

// know what a body has taken that was decoded.
func (p *permit) know(size, cost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.undecoded = max(0, p.undecoded-worstDecoded(size))
	p.decoded += int64(cost)
	if p.taken > 0 {
		n := p.wanted()
		p.destination.bodies.give(p.taken - n)
		p.taken = n
	}
}

// end of the permit; it may begin anew.
func (p *permit) end() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.destination.bodies.give(p.taken)
	p.taken, p.begun = 0, false
}

// forget what steps have made of a large message that waits: it is made again for the next attempt.
func (h *held) forget() {
	if h.permit != nil || len(h.message.Data) > smallBody || len(h.in.Data) > smallBody {
		h.message, h.delivery, h.decoded, h.permit = sdk.Message{}, sdk.Delivery{}, false, nil
	}
}
