package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
)

// What an acknowledgement says.
var (
	ackOK       = []byte("+ACK")
	ackProgress = []byte("+WPI")
	ackTerm     = []byte("+TERM")
)

// Pulls are short: a pod that dies leaves a pull behind, and what the broker sends to it waits for AckWait.
const (
	pullExpires = 2 * time.Second
	// pullGrace is how long after its end a pull may stay unanswered before it is taken for lost.
	pullGrace = 2 * time.Second
	// pullMargin is how much later than this pod's clock says a pull is surely over.
	pullMargin  = 50 * time.Millisecond
	infoTimeout = 3 * time.Second
)

// puller keeps one durable's pull requests going. It is guarded by its destination's lock.
type puller struct {
	d       *destination
	subject string
	sub     *nats.Subscription
	inbox   string
	// asked is how many messages the broker still owes to open pulls, the last of which ends at until; reserved is how many bytes.
	asked    int
	reserved int64
	until    time.Time
	// heard is when the last message or answer came.
	heard time.Time
	// bytes that the next pull asks for: as many as the last ones needed. need is what it has to ask for at least, because a message is larger
	// than what was asked for before; 0 for anything.
	bytes, need int64
	// failures of pulls in a row, and when the next may be made.
	failures int
	next     time.Time
	known    bool
	pin      pin
}

func (p *puller) start(ctx context.Context, d *destination) {
	p.d, p.bytes = d, smallPull
	p.subject = nextSubject(d)
	go p.learn(ctx)
	d.sink.conn.listen(listener{up: func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		p.reset()
		d.request()
	}})
	d.mu.Lock()
	defer d.mu.Unlock()
	p.reset()
	d.request()
}

func nextSubject(d *destination) string {
	return contract.APIPrefix + ".CONSUMER.MSG.NEXT." + d.route.Stream + "." + d.durable
}

// reset forgets open pulls: with another inbox, what they still bring goes nowhere. The caller holds the lock.
func (p *puller) reset() {
	if p.sub != nil {
		_ = p.sub.Unsubscribe()
		p.sub = nil
	}
	p.over()
	p.until, p.next = time.Time{}, time.Time{}
	if p.d.stopping {
		return
	}
	inbox := p.d.sink.conn.nc.NewInbox()
	sub, err := p.d.sink.conn.nc.Subscribe(inbox, p.message)
	if err != nil {
		p.d.log.Error("cannot subscribe to the durable's messages", "error", err)
		return
	}
	_ = sub.SetPendingLimits(-1, -1)
	p.sub, p.inbox = sub, inbox
}

// learn the durable's AckWait, as soon as the broker tells it.
func (p *puller) learn(ctx context.Context) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		ask, cancel := context.WithTimeout(ctx, infoTimeout)
		answer, err := p.d.sink.conn.nc.RequestWithContext(ask, contract.APIPrefix+".CONSUMER.INFO."+p.d.route.Stream+"."+p.d.durable, nil)
		cancel()
		if err == nil {
			var info struct {
				Config struct {
					AckWait time.Duration `json:"ack_wait"`
				} `json:"config"`
				Error *apiError `json:"error"`
			}
			if err = json.Unmarshal(answer.Data, &info); err == nil && info.Error == nil && info.Config.AckWait > 0 {
				p.d.mu.Lock()
				p.d.ackWait = info.Config.AckWait
				p.d.mu.Unlock()
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// request asks the broker for as many messages as there is room for. The caller holds the lock.
func (d *destination) request() {
	if d.lane != nil {
		d.lane.request()
		return
	}
	p := &d.pull
	room := d.capacity - len(d.held) - p.asked
	if d.circuit.open() {
		// One is enough to find out whether the system works again.
		room = 1 - len(d.held) - p.asked
	}
	now := time.Now()
	if d.stopping || p.sub == nil || room <= 0 || p.asked > 0 && room < d.capacity/2 || now.Before(p.next) {
		return
	}
	bytes := p.reserve()
	if bytes == 0 {
		return
	}
	body := make([]byte, 0, 80)
	body = append(body, `{"batch":`...)
	body = strconv.AppendInt(body, int64(room), 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(pullExpires), 10)
	body = append(body, `,"max_bytes":`...)
	body = strconv.AppendInt(body, bytes, 10)
	body = append(p.pin.request(body, now), '}')
	if err := d.sink.conn.nc.PublishRequest(p.subject, p.inbox, body); err != nil {
		p.next = now.Add(100 * time.Millisecond)
		d.bytes.give(bytes)
		return
	}
	p.asked += room
	p.reserved += bytes
	p.until = now.Add(pullExpires)
}

// reserve the bytes of a pull: as many as are wanted, or as few as always are to be had; none while a message waits for more than that.
func (p *puller) reserve() int64 {
	for _, n := range []int64{p.bytes, smallPull} {
		if n >= p.need && p.d.bytes.take(n) {
			return n
		}
	}
	return 0
}

// received takes what a message has from what was reserved for it, and returns its size, which is the destination's until it lets go of it.
// The caller holds the lock.
func (p *puller) received(in *nats.Msg) int64 {
	size := int64(in.Size())
	p.asked, p.need, p.heard = max(0, p.asked-1), 0, time.Now()
	reserved := min(size, p.reserved)
	p.reserved -= reserved
	p.d.bytes.give(reserved - size)
	if p.reserved == 0 {
		// The broker does not tell the end of a pull whose bytes were used up to the last.
		p.asked = 0
	}
	return size
}

// over: no pull is open any more. The caller holds the lock.
func (p *puller) over() {
	p.d.bytes.give(p.reserved)
	p.asked, p.reserved = 0, 0
}

// ended: a pull has, with that much left of it. The caller holds the lock.
func (p *puller) ended(messages int, bytes int64, description string) {
	p.asked = max(0, p.asked-messages)
	bytes = min(bytes, p.reserved)
	p.reserved -= bytes
	p.d.bytes.give(bytes)
	switch {
	case strings.Contains(description, "MaxBytes"):
		// The next message is larger than what was left. Where all was left, it is larger than what was asked for.
		if bytes == p.bytes || bytes == smallPull {
			p.need = 2 * bytes
		}
		p.bytes = min(2*p.bytes, largest)
		p.need = min(p.need, p.bytes)
	case bytes > p.bytes/2:
		p.bytes, p.need = max(p.bytes/2, smallPull), 0
	}
	if p.asked == 0 {
		p.over()
	}
}

// message from the subscription: a message of the stream, or what became of a pull.
func (p *puller) message(in *nats.Msg) {
	if in.Reply != "" {
		p.d.take(in)
		return
	}
	d, status := p.d, first(in.Header, "Status")
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.Subject != p.inbox {
		return
	}
	p.heard = time.Now()
	description := first(in.Header, "Description")
	if n, err := strconv.Atoi(first(in.Header, "Nats-Pending-Messages")); err == nil {
		bytes, _ := strconv.ParseInt(first(in.Header, "Nats-Pending-Bytes"), 10, 64)
		p.ended(n, bytes, description)
	} else if status != "100" {
		p.over()
	}
	switch {
	case status == "100":
	case status == "423" && d.lane != nil:
		d.lane.stand()
	case status == "423" && p.pin.wanted:
		d.unpinned()
	case status == "404", status == "408", status == "409" && isHarmless(description):
		p.working()
	case status == "503":
		p.failed(errors.New("the broker has no such durable consumer, or it has no leader at the moment"))
	default:
		p.failed(fmt.Errorf("the broker refuses to deliver: %s (%s)", description, status))
	}
	d.request()
}

// isHarmless tells ends of a pull that are part of its life.
func isHarmless(description string) bool {
	for _, s := range []string{"MaxBytes", "Batch Completed", "Leadership Change", "Server Shutdown", "Interest Expired"} {
		if strings.Contains(description, s) {
			return true
		}
	}
	return false
}

// working: the durable answers. The caller holds the lock.
func (p *puller) working() {
	if p.known && p.failures == 0 {
		return
	}
	p.known, p.failures, p.next = true, 0, time.Time{}
	if p.d.consumer.set("", nil) {
		p.d.sink.changed()
	}
	p.d.sink.conn.worked()
}

// failed: the durable does not answer as it should. It is reported once it has failed for some time, for leaders change now and then.
// The caller holds the lock.
func (p *puller) failed(err error) {
	p.over()
	p.failures++
	p.next = time.Now().Add(min(2*time.Second, 50*time.Millisecond<<min(p.failures, 6)))
	if p.failures < 4 {
		return
	}
	err = fmt.Errorf("durable consumer %s of stream %s: %w", p.d.durable, p.d.route.Stream, err)
	if p.d.consumer.set(contract.ReasonBrokerUnreachable, err) {
		p.d.log.Warn("the durable consumer does not answer", "error", err)
		p.d.sink.changed()
	}
}

// check finds pulls that were never answered, and makes those that were put off.
func (p *puller) check(now time.Time) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.asked > 0 && now.After(p.until.Add(pullGrace)) {
		p.over()
		// One whose bytes are used up to the last is not told to have ended.
		if p.d.sink.conn.isUp() && p.heard.Before(p.until.Add(-pullExpires)) {
			p.failures = max(p.failures, 3)
			p.failed(errors.New("it does not answer"))
			p.reset()
		}
	}
	p.d.request()
}

// finish waits until open pulls have ended, and gives back what they bring.
func (p *puller) finish() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		p.d.mu.Lock()
		done := p.asked == 0 || time.Now().After(p.until.Add(2*pullMargin)) || !p.d.sink.conn.isUp()
		p.d.mu.Unlock()
		if done {
			break
		}
	}
	if p.sub != nil {
		_ = p.sub.Unsubscribe()
	}
}

func isMark(subject string) bool { return strings.HasPrefix(subject, "mark.") }

// replyMeta is what a message's reply subject says.
type replyMeta struct {
	identity
	// delivered is how often it was, and consumer its sequence among all deliveries of the consumer.
	delivered, consumer uint64
}

// parseReply reads $JS.ACK.<stream>.<durable>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, or the longer form with domain
// and account hash before the stream, and perhaps another token at the end.
func parseReply(reply string) (m replyMeta, err error) {
	var t [13]string
	n := 0
	for rest, more := reply, true; more && n < len(t); n++ {
		t[n], rest, more = strings.Cut(rest, ".")
	}
	at := 4
	switch {
	case n < 9 || t[0] != "$JS" || t[1] != "ACK":
		return m, fmt.Errorf("unknown reply subject %q", reply)
	case n >= 11:
		at = 6
	}
	if m.delivered, err = strconv.ParseUint(t[at], 10, 64); err != nil {
		return m, err
	}
	if m.seq, err = strconv.ParseUint(t[at+1], 10, 64); err != nil {
		return m, err
	}
	if m.consumer, err = strconv.ParseUint(t[at+2], 10, 64); err != nil {
		return m, err
	}
	m.at, err = strconv.ParseInt(t[at+3], 10, 64)
	return m, err
}
