package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// kind of fault: how often it is chosen, against others, and what it does until it is over. It returns what it hit.
type kind struct {
	name   string
	weight int
	do     func() (subject string)
}

// What faults hit, besides the names of pods.
const (
	subjectBroker   = "broker"
	subjectTarget   = "target"
	subjectDatabase = "database"
)

func (w *world) kinds() []kind {
	kinds := []kind{
		{"source killed", 4, func() string { return w.killed(w.door()) }},
		{"sink killed", 6, func() string { return w.killed(w.sink()) }},
		{"server killed", 5, func() string { w.server().kill(w.dice.between(0, 2*time.Second)); return subjectBroker }},
		{"source frozen", 2, func() string { return w.frozen(w.door()) }},
		{"sink frozen", 3, func() string { return w.frozen(w.sink()) }},
		{"server frozen", 3, func() string { w.frozen(w.server()); return subjectBroker }},
		{"source killed while the broker hangs", 3, w.killedHanging},
		{"sink killed while the target is slow", 3, w.killedWaiting},
		{"link cut", 3, func() string { return w.linked(linkState{cut: true}) }},
		{"packets dropped", 3, func() string { return w.linked(linkState{dropUp: true, dropDown: true}) }},
		{"packets to the server dropped", 2, func() string { return w.linked(linkState{dropUp: true}) }},
		{"packets from the server dropped", 2, func() string { return w.linked(linkState{dropDown: true}) }},
		{"connections half open", 2, w.halfOpened},
		{"target slow", 3, func() string { return w.behaves(slow) }},
		{"target fails", 2, func() string { return w.behaves(failing) }},
		{"target unavailable", 2, func() string { return w.behaves(unavailable) }},
		{"target busy", 2, func() string { return w.behaves(busy) }},
		{"target resets", 2, func() string { return w.behaves(resetting) }},
		{"target lies", 2, func() string { return w.behaves(lying) }},
		{"target breaks off", 2, func() string { return w.behaves(breaking) }},
		{"target flaps", 2, w.flapped},
		{"database killed", 2, w.databaseKilled},
	}
	if len(w.servers) > 1 {
		kinds = append(kinds, kind{"leader steps down", 5, w.steppedDown})
	}
	if len(w.disks) > 0 {
		kinds = append(kinds, kind{"disk full", 2, w.diskFull})
	}
	return kinds
}

// unleash faults until ctx ends: one after the other, now and then two at a time.
func (w *world) unleash(ctx context.Context) {
	kinds := w.kinds()
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	var under sync.WaitGroup
	defer under.Wait()
	for first := 0; ctx.Err() == nil; first++ {
		w.awaitFlow(ctx)
		k := kinds[first%len(kinds)]
		// Each once, so that a short run has them all; then by weight.
		if first >= len(kinds) {
			at := w.dice.below(total)
			for _, k = range kinds {
				if at -= k.weight; at < 0 {
					break
				}
			}
		}
		done := make(chan struct{})
		under.Go(func() {
			defer close(done)
			w.fault(k)
		})
		if w.dice.below(4) != 0 {
			<-done
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.dice.between(50*time.Millisecond, 700*time.Millisecond)):
		}
	}
}

// awaitFlow waits a while until messages arrive, for a fault bites only where something flows. Where two faults are to meet, they do by and by.
func (w *world) awaitFlow(ctx context.Context) {
	for deadline := time.Now().Add(12 * time.Second); ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if w.target.busyWithin(200 * time.Millisecond) {
			return
		}
	}
}

func (w *world) fault(k kind) {
	f := fault{kind: k.name, from: time.Now()}
	f.subject = k.do()
	f.to = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, f)
}

// heal everything.
func (w *world) heal() {
	w.target.set(fine)
	for u, links := range w.links {
		for _, k := range links {
			k.set(linkState{})
		}
		u.revive()
	}
	for _, u := range w.servers {
		u.revive()
	}
}

func (w *world) sink() *unit {
	if w.dice.below(3) == 0 {
		return w.sql
	}
	return w.http
}

// door is a source.
func (w *world) door() *unit {
	if w.claims != nil && w.dice.below(3) == 0 {
		return w.claims
	}
	return w.source
}

func (w *world) server() *unit { return w.servers[w.dice.below(len(w.servers))] }

func (w *world) anyPod() *unit {
	if w.dice.below(2) == 0 {
		return w.door()
	}
	return w.sink()
}

func (w *world) killed(u *unit) string {
	u.kill(w.dice.between(0, time.Second))
	return u.name
}

// killedHanging is a source that dies with everything in its hands that came while the broker did not answer.
func (w *world) killedHanging() string {
	var all sync.WaitGroup
	for _, u := range w.servers {
		all.Go(func() { u.freeze(1500 * time.Millisecond) })
	}
	time.Sleep(w.dice.between(500*time.Millisecond, time.Second))
	w.source.kill(0)
	all.Wait()
	return subjectBroker
}

// killedWaiting is a sink that dies while the target works on as many messages as it may be given.
func (w *world) killedWaiting() string {
	w.target.set(slow)
	time.Sleep(w.dice.between(500*time.Millisecond, time.Second))
	w.http.kill(0)
	w.target.set(fine)
	return w.http.name
}

func (w *world) frozen(u *unit) string {
	u.freeze(w.dice.between(200*time.Millisecond, 4*time.Second))
	return u.name
}

func (w *world) linked(s linkState) string {
	u := w.anyPod()
	for _, k := range w.links[u] {
		k.set(s)
	}
	time.Sleep(w.dice.between(200*time.Millisecond, 4*time.Second))
	for _, k := range w.links[u] {
		k.set(linkState{})
	}
	return u.name
}

func (w *world) halfOpened() string {
	u := w.anyPod()
	for _, k := range w.links[u] {
		k.halfOpen()
	}
	return u.name
}

func (w *world) behaves(m mode) string {
	w.target.set(m)
	time.Sleep(w.dice.between(500*time.Millisecond, 3*time.Second))
	w.target.set(fine)
	return subjectTarget
}

// flapped between working and failing, several times a second.
func (w *world) flapped() string {
	modes := []mode{failing, unavailable, resetting, lying, breaking, busy}
	for range 4 + w.dice.below(8) {
		w.target.set(modes[w.dice.below(len(modes))])
		time.Sleep(w.dice.between(20*time.Millisecond, 200*time.Millisecond))
		w.target.set(fine)
		time.Sleep(w.dice.between(20*time.Millisecond, 200*time.Millisecond))
	}
	return subjectTarget
}

func (w *world) databaseKilled() string {
	w.database.Kill()
	time.Sleep(w.dice.between(0, time.Second))
	if err := w.database.Resume(); err != nil {
		w.t.Error(err)
	}
	return subjectDatabase
}

// steppedDown leader of the stream, or of one of its consumers.
func (w *world) steppedDown() string {
	f := w.flows[w.sink()]
	subject := "$JS.API.STREAM.LEADER.STEPDOWN." + f.Stream()
	if w.dice.below(2) == 0 {
		subject = "$JS.API.CONSUMER.LEADER.STEPDOWN." + f.Stream() + "." + f.Durable()
	}
	_, _ = w.broker.Conn().Request(subject, nil, time.Second) // perhaps there is none at the moment
	return subjectBroker
}

// diskFull fills the volume of a server, and makes room again after a while. The server gives up JetStream then; what its liveness probe does about
// it is to kill it.
func (w *world) diskFull() string {
	i := w.dice.below(len(w.disks))
	ballast := filepath.Join(w.disks[i].path, "ballast")
	if err := fill(ballast); err != nil {
		w.t.Error(err)
	}
	time.Sleep(w.dice.between(time.Second, 3*time.Second))
	if err := os.Remove(ballast); err != nil {
		w.t.Error(err)
	}
	w.servers[i].kill(0)
	return subjectBroker
}

// fill a volume.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// between gives the faults of a stretch of time, and of the moment before: what breaks shows a little later.
func (w *world) between(from, to time.Time) string {
	from = from.Add(-2 * time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, f := range w.faults {
		if f.from.Before(to) && f.to.After(from) {
			names = append(names, f.kind+" ("+f.subject+")")
		}
	}
	return strings.Join(names, ", ")
}

// timeline of the faults from ten seconds before a stretch of time to its end.
func (w *world) timeline(from, to time.Time) string {
	from = from.Add(-10 * time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	var out strings.Builder
	for _, f := range w.faults {
		if f.from.Before(to) && f.to.After(from) {
			fmt.Fprintf(&out, "\n  %s to %s %s (%s)", f.from.Format(clock), f.to.Format(clock), f.kind, f.subject)
		}
	}
	return out.String()
}

// clock is how moments are told.
const clock = "15:04:05.000"

// during says whether a subject was hit between two times.
func (w *world) during(from, to time.Time, subjects ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		for _, s := range subjects {
			if f.subject == s && f.from.Before(to) && f.to.After(from) {
				return true
			}
		}
	}
	return false
}
