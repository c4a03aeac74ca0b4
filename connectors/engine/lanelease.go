package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/metip/metip/connectors/contract"
)

const headerPinID = "Nats-Pin-Id"

// quorumSeen is how long ago the leader of a durable may have heard of the servers that it needs: one that is cut off from the others does
// not know yet that they have another leader, which they begin to look for after four seconds.
const quorumSeen = 3 * time.Second

var errNoLane = errors.New("it is not a lane: the operator has to make it")

// laneInfo is what the broker says of a lane's durable.
type laneInfo struct {
	Config struct {
		AckWait       time.Duration `json:"ack_wait"`
		PinTime       time.Duration `json:"priority_timeout"`
		MaxAckPending int           `json:"max_ack_pending"`
	} `json:"config"`
	AckPending int  `json:"num_ack_pending"`
	Paused     bool `json:"paused"`
	Groups     []struct {
		Group string `json:"group"`
		Pin   string `json:"pinned_client_id"`
	} `json:"priority_groups"`
	Cluster *struct {
		Replicas []struct {
			Active time.Duration `json:"active"`
		} `json:"replicas"`
	} `json:"cluster"`
	Error *apiError `json:"error"`
}

// pin of the pod that has the lane.
func (i *laneInfo) pin() string {
	for _, g := range i.Groups {
		if g.Group == contract.LaneGroup {
			return g.Pin
		}
	}
	return ""
}

// quorate: the leader that answered is the one that the other servers follow.
func (i *laneInfo) quorate() bool {
	if i.Cluster == nil || len(i.Cluster.Replicas) == 0 {
		return true
	}
	others := i.Cluster.Replicas
	seen := make([]time.Duration, len(others))
	for n := range others {
		seen[n] = others[n].Active
	}
	slices.Sort(seen)
	return seen[(len(others)+1)/2-1] <= quorumSeen
}

// call the broker's API about the lane's durable.
func (l *lane) call(ctx context.Context, name string, limit time.Duration) (*laneInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := l.d.sink.conn.nc.RequestWithContext(ctx, contract.APIPrefix+".CONSUMER."+name+"."+l.d.route.Stream+"."+l.d.durable, nil)
	if err != nil {
		return nil, fmt.Errorf("asking for CONSUMER.%s: %w", name, err)
	}
	info := &laneInfo{}
	if err := json.Unmarshal(answer.Data, info); err != nil {
		return nil, fmt.Errorf("the answer to CONSUMER.%s: %w", name, err)
	}
	if info.Error != nil {
		return nil, info.Error
	}
	return info, nil
}

// learn the lane's times, as soon as the broker tells them. It is false when the context has ended.
func (l *lane) learn(ctx context.Context) bool {
	d := l.d
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		info, err := l.call(ctx, "INFO", infoTimeout)
		if err == nil && (info.Config.PinTime <= 0 || info.Config.AckWait <= 0) {
			err = errNoLane
		}
		d.mu.Lock()
		if err == nil {
			d.ackWait, l.pinTime, l.window = info.Config.AckWait, info.Config.PinTime, max(1, min(info.Config.MaxAckPending, maxHeld))
			d.pull.working()
			d.mu.Unlock()
			return true
		}
		if d.sink.conn.isUp() && ctx.Err() == nil {
			d.pull.failed(err)
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// takeOver the lane that this pod is pinned to: back to what was acknowledged last.
func (l *lane) takeOver(ctx context.Context) {
	d := l.d
	d.mu.Lock()
	turn, pin := l.turn, l.pin
	d.mu.Unlock()
	asked := time.Now()
	info, err := l.call(ctx, "INFO", l.pinTime/4)
	mine := err == nil && info.pin() == pin
	if mine && !info.quorate() {
		err = errors.New("its leader has lost the other servers")
	}
	if mine && err == nil {
		_, err = l.call(ctx, "RESET", l.pinTime/4)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case l.turn != turn || d.stopping:
	case err != nil:
		l.due = time.Now().Add(l.pinTime / 8)
		if d.sink.conn.isUp() {
			d.pull.failed(err)
		}
	case !mine:
		l.stand()
	default:
		d.pull.working()
		l.activate(asked)
	}
}

// confirm the lease.
func (l *lane) confirm(ctx context.Context) {
	d := l.d
	d.mu.Lock()
	turn, pin := l.turn, l.pin
	d.mu.Unlock()
	asked := time.Now()
	info, err := l.call(ctx, "INFO", l.pinTime/8)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case l.turn != turn || err != nil:
	case info.pin() != pin:
		l.stand()
	case info.quorate() && l.tenure != nil && asked.After(l.tenure.confirmed):
		l.tenure.confirmed = asked
	}
}

// holds tells whether this pod may try these messages now. Otherwise they are dropped, and come again.
func (l *lane) holds(batch []*held) bool {
	t := batch[0].place.tenure
	if age, ok := l.age(t); ok && age >= l.pinTime/4 {
		l.confirming.Lock()
		if age, ok = l.age(t); ok && age >= l.pinTime/4 {
			l.confirm(l.d.sink.deliver)
		}
		l.confirming.Unlock()
	}
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if t == l.tenure && !t.over && time.Since(t.confirmed) >= l.lease() {
		l.lapse(t)
	}
	if t == l.tenure && !t.over {
		return true
	}
	for _, h := range batch {
		l.drop(h)
	}
	return false
}

// age of the last confirmation of a lease; not ok when it is over.
func (l *lane) age(t *tenure) (time.Duration, bool) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	return time.Since(t.confirmed), t == l.tenure && !t.over
}

// lapsed tells whether the lease of messages ended while they were written. They are dropped then, whatever the system answered.
func (l *lane) lapsed(batch []*held) bool {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if !batch[0].place.tenure.over {
		return false
	}
	for _, h := range batch {
		l.drop(h)
	}
	return true
}

// lookAfter a lane that may be nobody's: what was given to a pod that died does not come again before its time, unless somebody asks.
func (l *lane) lookAfter(ctx context.Context) {
	d := l.d
	d.mu.Lock()
	turn := l.turn
	d.mu.Unlock()
	info, err := l.call(ctx, "INFO", l.pinTime/4)
	d.mu.Lock()
	if l.turn != turn || err != nil || info.pin() != "" || info.AckPending == 0 || info.Paused {
		l.orphans = 0
		d.mu.Unlock()
		return
	}
	l.orphans++
	orphan := l.orphans > 1
	if orphan {
		l.orphans = 0
	} else {
		l.orphanAt = time.Now().Add(l.pinTime / 2)
	}
	d.mu.Unlock()
	if orphan {
		if _, err := l.call(ctx, "RESET", l.pinTime/4); err != nil {
			d.log.Debug("a lane that nobody serves could not be reset", "lane", l.index, "error", err)
		}
	}
}

// request asks for messages: one, to be pinned by it, or as many as there is room for. The caller holds the lock.
func (l *lane) request() {
	d, p, now := l.d, &l.d.pull, time.Now()
	if d.stopping || p.sub == nil || now.Before(p.next) {
		return
	}
	switch l.phase {
	case laneStandby:
		if p.asked == 0 && l.inflight == 0 {
			l.pull(now, 1, 0)
		}
	case laneActive:
		room := l.window - len(d.held)
		if l.window == 1 {
			room = 1 // the broker gives it only once the one before is acknowledged
		}
		if d.circuit.open() {
			room = 1 - len(d.held)
		}
		room = min(room, laneBatch) - p.asked
		if room <= 0 || p.asked > 0 && room < laneBatch/2 {
			return
		}
		if room = min(room, l.span()-p.asked); room <= 0 {
			return
		}
		if bytes := p.reserve(); bytes > 0 {
			l.pull(now, room, bytes)
		}
	}
}

// span is how many more messages may be delivered past the first that is not done with. The caller holds the lock.
func (l *lane) span() int {
	oldest := l.expect
	for _, h := range l.d.held {
		oldest = min(oldest, max(1, h.place.consumer))
	}
	return laneSpan - int(min(l.expect-oldest, laneSpan))
}

// expires is how long a pull of a lane lasts: less than what a new pod waits for.
func (l *lane) expires() time.Duration { return min(pullExpires, l.pinTime*2/5) }

// pull a number of messages. The caller holds the lock.
func (l *lane) pull(now time.Time, n int, bytes int64) {
	d, p := l.d, &l.d.pull
	if err := d.sink.conn.nc.PublishRequest(p.subject, p.inbox, l.pullRequest(n, bytes)); err != nil {
		p.next = now.Add(100 * time.Millisecond)
		d.bytes.give(bytes)
		return
	}
	p.asked += n
	p.reserved += bytes
	p.until = now.Add(l.expires())
	l.pulled = now
}

// stay pinned although there is no room for messages: a pull that no message fits says no more than that the pod is there. The caller holds
// the lock.
func (l *lane) stay(now time.Time) {
	if now.Sub(l.pulled) < l.pinTime/4 {
		return
	}
	if l.d.sink.conn.nc.PublishRequest(l.d.pull.subject, l.silent, l.pullRequest(1, 1)) == nil {
		l.pulled = now
	}
}

// unpin tells the broker that this pod leaves the lane, so that nobody has to wait until its pin has expired. The caller holds the lock.
func (l *lane) unpin() {
	subject := contract.APIPrefix + ".CONSUMER.UNPIN." + l.d.route.Stream + "." + l.d.durable
	_ = l.d.sink.conn.nc.PublishRequest(subject, l.silent, []byte(`{"group":"`+contract.LaneGroup+`"}`))
}

func (l *lane) pullRequest(n int, bytes int64) []byte {
	body := make([]byte, 0, 128)
	body = append(body, `{"batch":`...)
	body = strconv.AppendInt(body, int64(n), 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(l.expires()), 10)
	if bytes > 0 {
		body = append(body, `,"max_bytes":`...)
		body = strconv.AppendInt(body, bytes, 10)
	}
	body = append(body, `,"group":"`+contract.LaneGroup+`"`...)
	if l.pin != "" {
		body = append(body, `,"id":"`...)
		body = append(body, l.pin...)
		body = append(body, '"')
	}
	return append(body, '}')
}

// mute: what the broker still sends goes nowhere. The caller holds the lock.
func (l *lane) mute() {
	p := &l.d.pull
	if p.sub != nil {
		_ = p.sub.Unsubscribe()
		p.sub = nil
	}
	p.over()
}

// listenAnew on an inbox of its own, so that nothing that was asked for before comes there. The caller holds the lock.
func (l *lane) listenAnew() {
	l.mute()
	if l.d.stopping {
		return
	}
	p := &l.d.pull
	inbox := l.d.sink.conn.nc.NewInbox()
	sub, err := l.d.sink.conn.nc.Subscribe(inbox, p.message)
	if err != nil {
		l.d.log.Error("cannot subscribe to the lane's messages", "error", err)
		return
	}
	_ = sub.SetPendingLimits(-1, -1)
	p.sub, p.inbox = sub, inbox
}

// miss pulls that were never answered. The caller holds the lock.
func (l *lane) miss(now time.Time) {
	p := &l.d.pull
	if p.asked == 0 || !now.After(p.until.Add(pullGrace)) {
		return
	}
	p.over()
	if !l.d.sink.conn.isUp() || !p.heard.Before(p.until.Add(-l.expires())) {
		return
	}
	p.failures = max(p.failures, 3)
	p.failed(errors.New("it does not answer"))
	if l.phase == laneActive {
		l.restart("the durable does not answer")
	} else {
		l.listenAnew()
	}
}
