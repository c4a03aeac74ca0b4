package operator_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

func newReplay(ns, name string, from v1alpha1.ReplaySource) *v1alpha1.Replay {
	return &v1alpha1.Replay{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       v1alpha1.ReplaySpec{To: v1alpha1.ReplayTarget{Route: "arrests", Destination: "court"}, From: from, Rate: 20000},
	}
}

// everything that the stream holds.
func everything() v1alpha1.ReplaySource {
	return v1alpha1.ReplaySource{Sequences: &v1alpha1.ReplaySequences{First: 1}}
}

// area is a namespace with a flow from custody to court, whose Route arrests reads events of the type custody.arrest and what begins with it.
type area struct {
	ns    string
	route *v1alpha1.Route
	js    jetstream.JetStream
}

func newArea(ctx SpecContext, change func(*v1alpha1.Integration)) *area {
	GinkgoHelper()
	a := &area{ns: newNamespace(ctx)}
	integration := newIntegration(a.ns)
	if change != nil {
		change(integration)
	}
	a.route = newRoute(a.ns, "arrests", "custody", "court")
	a.route.Spec.From[0].Types = []string{"custody.arrest"}
	create(ctx, integration, newSource(a.ns, "custody"), newSink(a.ns, "court"), a.route)
	expectReady(ctx, a.route)
	_, a.js = broker.Admin()
	return a
}

func (a *area) stream() string { return contract.EventStream(a.ns, "default") }

// publish events as the source does, and return the sequence of the last.
func (a *area) publish(ctx context.Context, eventType string, from, to, size int) (last uint64) {
	GinkgoHelper()
	for i := from; i < to; i++ {
		id := fmt.Sprint("m", i)
		ack, err := a.js.PublishMsg(ctx, &nats.Msg{
			Subject: contract.EventSubject(a.ns, "default", "custody", contract.Slot(id), eventType), Data: make([]byte, size),
			Header: nats.Header{"Nats-Msg-Id": {"uid//" + eventType + id}, contract.HeaderID: {id}, contract.HeaderType: {eventType}},
		})
		Expect(err).NotTo(HaveOccurred())
		last = ack.Sequence
	}
	return last
}

// sink takes everything that the destination's durable consumers deliver, as its pods do, until the spec ends. It tells which ids came how
// often: as originals, and as copies.
func (a *area) sink(ctx context.Context) func() (originals, copies map[string]int) {
	GinkgoHelper()
	var mu sync.Mutex
	originals, copies := map[string]int{}, map[string]int{}
	take := func(m jetstream.Msg) {
		mu.Lock()
		defer mu.Unlock()
		id := m.Headers().Get(contract.HeaderID)
		switch {
		case strings.HasPrefix(m.Subject(), contract.ReplayPrefix):
			copies[id]++
		case strings.HasPrefix(m.Subject(), "evt."):
			originals[id]++
		}
		_ = m.Ack()
	}
	working, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for _, c := range a.durables(ctx) {
		work.Go(func() { pull(working, c, take) })
	}
	DeferCleanup(func() { stop(); work.Wait() })
	return func() (map[string]int, map[string]int) {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(originals), maps.Clone(copies)
	}
}

// durables of the destination.
func (a *area) durables(ctx context.Context) (out []jetstream.Consumer) {
	GinkgoHelper()
	stream, err := a.js.Stream(ctx, a.stream())
	Expect(err).NotTo(HaveOccurred())
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		if strings.HasPrefix(name, contract.DurableName(a.ns, "arrests", "court")) {
			c, err := a.js.Consumer(ctx, a.stream(), name)
			Expect(err).NotTo(HaveOccurred())
			out = append(out, c)
		}
	}
	Expect(names.Err()).NotTo(HaveOccurred())
	Expect(out).NotTo(BeEmpty())
	return out
}

// pull from a durable consumer until ctx ends.
func pull(ctx context.Context, c jetstream.Consumer, take func(jetstream.Msg)) {
	options := []jetstream.FetchOpt{jetstream.FetchMaxWait(500 * time.Millisecond)}
	if groups := c.CachedInfo().Config.PriorityGroups; len(groups) > 0 {
		options = append(options, jetstream.FetchPriorityGroup(groups[0]))
	}
	for ctx.Err() == nil {
		batch, err := c.Fetch(100, options...)
		if err != nil {
			continue // the operator, or the spec, has just changed it
		}
		for m := range batch.Messages() {
			take(m)
		}
	}
}

// copies that the stream holds, by the id of the original.
func (a *area) copies(ctx context.Context) map[string]int {
	GinkgoHelper()
	return a.held(ctx, contract.ReplaySubjects(a.ns, "default"), 1)
}

// held are the messages that the stream holds from a sequence on, by their ids. The bus has messages of its own between those of a spec, so that
// sequences do not tell how many there are.
func (a *area) held(ctx context.Context, subjects string, from uint64) map[string]int {
	GinkgoHelper()
	stream, err := a.js.Stream(ctx, a.stream())
	Expect(err).NotTo(HaveOccurred())
	out := map[string]int{}
	for seq := from; ; {
		m, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subjects))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out
		}
		Expect(err).NotTo(HaveOccurred())
		out[m.Header.Get(contract.HeaderID)]++
		seq = m.Sequence + 1
	}
}

// once says that each of the messages m<from> to m<to-1> is in a count once, and nothing else is.
func once(from, to int) map[string]int {
	out := map[string]int{}
	for i := from; i < to; i++ {
		out[fmt.Sprint("m", i)] = 1
	}
	return out
}

func sent(ctx context.Context, o *v1alpha1.Replay) func() int64 {
	return func() int64 {
		if api.Get(ctx, client.ObjectKeyFromObject(o), o) != nil || o.Status.Counts == nil {
			return -1
		}
		return o.Status.Counts.Sent
	}
}

func completed(ctx context.Context, o *v1alpha1.Replay) {
	GinkgoHelper()
	Eventually(condition(ctx, o, "Ready")).WithTimeout(time.Minute).Should(HavePrefix("True/Completed"))
	Expect(condition(ctx, o, "Complete")()).To(HavePrefix("True/Completed"))
	Expect(o.Status.StartedAt).NotTo(BeNil())
	Expect(o.Status.CompletedAt).NotTo(BeNil())
	Expect(o.Status.Counts.Remaining).To(BeZero())
}

var _ = Describe("A Replay", func() {
	It("delivers a time again, to its destination alone, and says so", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		other := newRoute(a.ns, "other", "custody", "court")
		create(ctx, other)
		expectReady(ctx, other)
		seen := a.sink(ctx)
		begun := metav1.Now()
		a.publish(ctx, "custody.arrest", 0, 300, 100)
		a.publish(ctx, "custody.release", 0, 50, 100) // which the Route does not read
		o := newReplay(a.ns, "again", v1alpha1.ReplaySource{Time: &v1alpha1.ReplayTime{From: metav1.NewTime(begun.Add(-time.Hour))}})
		o.Spec.To.Destination = ""
		create(ctx, o)
		completed(ctx, o)
		Expect(*o.Status.Counts).To(Equal(v1alpha1.ReplayCounts{Matched: 300, Sent: 300}))
		Expect(o.Status.Progress).To(Equal("300/300"))
		Expect(o.Status.To).To(Equal("arrests/court"))
		Expect(condition(ctx, o, "Ready")()).To(ContainSubstring("300 messages were replayed; the bus held no message from before"))
		originals, copies := seen()
		Expect(originals).To(Equal(once(0, 300)))
		Expect(copies).To(Equal(once(0, 300)), "complete means that the destination has them")
		info, err := a.js.Consumer(ctx, a.stream(), contract.DurableName(a.ns, "other", "court"))
		Expect(err).NotTo(HaveOccurred())
		Expect(info.CachedInfo().NumPending).To(BeNumerically("<", 350+20), "the other Route is owed the originals, and marks")
		Consistently(func() int { return len(a.copies(ctx)) }).WithTimeout(2 * time.Second).Should(Equal(300))
	})

	It("only counts in a dry run", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		last := a.publish(ctx, "custody.arrest", 0, 40, 100)
		o := newReplay(a.ns, "dry", v1alpha1.ReplaySource{Sequences: &v1alpha1.ReplaySequences{First: 11, Last: new(int64(last))}})
		o.Spec.DryRun = new(true)
		create(ctx, o)
		matched := len(a.held(ctx, "evt.>", 11))
		Expect(matched).To(BeNumerically("<", 40), "some are left out")
		Eventually(condition(ctx, o, "Ready")).Should(Equal(fmt.Sprintf("True/Completed: a dry run: %d messages would be replayed", matched)))
		Expect(o.Status.Counts.Sent).To(BeZero())
		Expect(o.Status.Progress).To(Equal(fmt.Sprintf("0/%d", matched)))
		Expect(a.copies(ctx)).To(BeEmpty())
	})

	It("goes on where it was when the operator dies in the middle, and stores nothing twice", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		seen := a.sink(ctx)
		a.publish(ctx, "custody.arrest", 0, 1200, 100)
		o := newReplay(a.ns, "again", everything())
		o.Spec.Rate = 150
		create(ctx, o)
		for _, n := range []int64{100, 500} {
			Eventually(sent(ctx, o)).WithTimeout(30 * time.Second).Should(BeNumerically(">", n))
			manager.stop()
			manager = startOperator()
		}
		Expect(sent(ctx, o)()).To(BeNumerically("<", 1200), "it is in the middle")
		change(ctx, o, func(o *v1alpha1.Replay) { o.Spec.Rate = 2000 })
		completed(ctx, o)
		Expect(*o.Status.Counts).To(Equal(v1alpha1.ReplayCounts{Matched: 1200, Sent: 1200}))
		Expect(a.copies(ctx)).To(Equal(once(0, 1200)))
		_, copies := seen()
		Expect(copies).To(Equal(once(0, 1200)))
	})

	It("brings each message to the lane of its key", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		remove(ctx, a.route)
		Eventually(gone(ctx, a.route)).Should(Succeed())
		a.route = newRoute(a.ns, "arrests", "custody", "court")
		a.route.Spec.Delivery = &v1alpha1.Delivery{Order: v1alpha1.OrderPerKey, Lanes: 4}
		create(ctx, a.route)
		expectReady(ctx, a.route)
		a.publish(ctx, "custody.arrest", 0, 100, 100)
		o := newReplay(a.ns, "again", everything())
		create(ctx, o)
		Eventually(condition(ctx, o, "Ready")).Should(HavePrefix("False/Delivering"))
		lanes := a.durables(ctx)
		Expect(lanes).To(HaveLen(4))
		pending := uint64(0)
		for _, lane := range lanes {
			pending += lane.CachedInfo().NumPending
		}
		Expect(pending).To(And(BeNumerically(">=", 200), BeNumerically("<", 240)), "each message and each copy in one lane, and marks in all")
		seen := a.sink(ctx)
		completed(ctx, o)
		originals, copies := seen()
		Expect(originals).To(Equal(once(0, 100)))
		Expect(copies).To(Equal(once(0, 100)))
	})

	It("stops when it is suspended, and goes on after it", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		a.sink(ctx)
		a.publish(ctx, "custody.arrest", 0, 400, 100)
		o := newReplay(a.ns, "again", everything())
		o.Spec.Rate = 50
		create(ctx, o)
		Eventually(sent(ctx, o)).Should(BeNumerically(">", 0))
		Expect(condition(ctx, o, "Ready")()).To(HavePrefix("False/Replaying"))
		Expect(condition(ctx, o, "Reconciling")()).To(HavePrefix("True/Progressing"))
		change(ctx, o, func(o *v1alpha1.Replay) { o.Spec.Suspend = new(true) })
		Eventually(condition(ctx, o, "Ready")).Should(HavePrefix("False/Suspended"))
		stopped := sent(ctx, o)()
		Consistently(sent(ctx, o)).WithTimeout(4 * time.Second).Should(Equal(stopped))
		Expect(len(a.copies(ctx))).To(BeEquivalentTo(stopped))
		change(ctx, o, func(o *v1alpha1.Replay) { o.Spec.Suspend, o.Spec.Rate = nil, 1000 })
		completed(ctx, o)
		Expect(a.copies(ctx)).To(Equal(once(0, 400)))
	})

	It("finds single messages by their ids, and counts those that are gone", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		a.sink(ctx)
		a.publish(ctx, "custody.arrest", 0, 50, 100)
		o := newReplay(a.ns, "some", v1alpha1.ReplaySource{IDs: []v1alpha1.MessageID{"m7", "uid//custody.arrestm9", "never-seen"}})
		create(ctx, o)
		completed(ctx, o)
		Expect(*o.Status.Counts).To(Equal(v1alpha1.ReplayCounts{Matched: 2, Sent: 2, Missing: 1}))
		Expect(slices.Sorted(maps.Keys(a.copies(ctx)))).To(Equal([]string{"m7", "m9"}))
		Expect(condition(ctx, o, "Complete")()).To(Equal("True/Completed: 2 messages were replayed; 1 are missing"))
	})

	It("redrives dead letters by reason, and removes them unless they are to be kept", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		seen := a.sink(ctx)
		last := a.publish(ctx, "custody.arrest", 0, 30, 100)
		for i := range 30 {
			reason := contract.DeadReasonStepFailed
			if i >= 20 {
				reason = contract.DeadReasonRejected
			}
			sequence := last - 29 + uint64(i)
			_, err := a.js.PublishMsg(ctx, &nats.Msg{
				Subject: contract.DeadSubject(a.ns, "default", "arrests", "court", sequence, 0), Header: nats.Header{
					contract.HeaderID: {fmt.Sprint("m", i)}, contract.HeaderDeadReason: {reason}, contract.HeaderDeadSequence: {strconv.FormatUint(sequence, 10)},
					contract.HeaderDeadSubject: {contract.EventSubject(a.ns, "default", "custody", 3, "custody.arrest")},
				},
			})
			Expect(err).NotTo(HaveOccurred())
		}
		dead := func() uint64 {
			s, err := a.js.Stream(ctx, contract.DeadStream(a.ns, "default"))
			Expect(err).NotTo(HaveOccurred())
			return s.CachedInfo().State.Msgs
		}
		kept := newReplay(a.ns, "kept", v1alpha1.ReplaySource{DeadLetters: &v1alpha1.ReplayDeadLetters{
			Reasons: []string{contract.DeadReasonRejected}, Keep: new(true),
		}})
		create(ctx, kept)
		completed(ctx, kept)
		Expect(kept.Status.Counts.Sent).To(BeEquivalentTo(10))
		Expect(dead()).To(BeEquivalentTo(30))
		o := newReplay(a.ns, "fixed", v1alpha1.ReplaySource{DeadLetters: &v1alpha1.ReplayDeadLetters{Reasons: []string{contract.DeadReasonStepFailed}}})
		o.Spec.Rate = 10 // so that it takes more than one run
		create(ctx, o)
		completed(ctx, o)
		Expect(*o.Status.Counts).To(Equal(v1alpha1.ReplayCounts{Matched: 20, Sent: 20}))
		Expect(dead()).To(BeEquivalentTo(10))
		_, copies := seen()
		Expect(copies).To(Equal(once(0, 30)))
	})

	It("is complete only when the destination has taken everything", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		a.publish(ctx, "custody.arrest", 0, 20, 100)
		change(ctx, a.route, func(r *v1alpha1.Route) { r.Spec.Suspend = new(true) })
		o := newReplay(a.ns, "again", everything())
		create(ctx, o)
		Eventually(condition(ctx, o, "Ready")).Should(And(HavePrefix("False/Delivering"), ContainSubstring("the Route is suspended")))
		Expect(o.Status.Progress).To(Equal("20/20"))
		seen := a.sink(ctx)
		change(ctx, a.route, func(r *v1alpha1.Route) { r.Spec.Suspend = nil })
		completed(ctx, o)
		_, copies := seen()
		Expect(copies).To(Equal(once(0, 20)))
	})

	It("waits for room instead of filling the bus", func(ctx SpecContext) {
		a := newArea(ctx, func(i *v1alpha1.Integration) { i.Spec.Retention = &v1alpha1.Retention{Size: quantity("8Mi")} })
		a.publish(ctx, "custody.arrest", 0, 13, 512<<10)
		o := newReplay(a.ns, "again", everything())
		create(ctx, o)
		Eventually(condition(ctx, o, "Ready")).Should(HavePrefix("False/StreamFull"))
		Expect(condition(ctx, o, "Ready")()).To(ContainSubstring("spec.retention.size"))
		Expect(sent(ctx, o)()).To(BeNumerically("<", 13))
		a.sink(ctx)
		integration := newIntegration(a.ns)
		change(ctx, integration, func(i *v1alpha1.Integration) { i.Spec.Retention = &v1alpha1.Retention{Size: quantity("64Mi")} })
		completed(ctx, o)
		Expect(a.copies(ctx)).To(Equal(once(0, 13)))
	})

	It("says what it names and is not there, and waits for it", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		o := newReplay(a.ns, "again", everything())
		o.Spec.To = v1alpha1.ReplayTarget{Route: "later"}
		create(ctx, o)
		Eventually(condition(ctx, o, "ResolvedRefs")).Should(HavePrefix("False/RouteNotFound: there is no Route later"))
		wrong := newReplay(a.ns, "wrong", everything())
		wrong.Spec.To.Destination = "archive"
		create(ctx, wrong)
		Eventually(condition(ctx, wrong, "ResolvedRefs")).Should(Equal("False/DestinationNotFound: Route arrests has no destination archive: it has the destinations court"))
		create(ctx, newSink(a.ns, "archive"))
		several := newRoute(a.ns, "later", "custody", "court", "archive")
		create(ctx, several)
		Eventually(condition(ctx, o, "ResolvedRefs")).Should(HavePrefix("False/DestinationNotFound: Route later has the destinations court, archive"))
		change(ctx, several, func(r *v1alpha1.Route) { r.Spec.To = r.Spec.To[1:] })
		completed(ctx, o)
		Expect(o.Status.To).To(Equal("later/archive"))
	})

	It("fails when its Route or its stream is another", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		a.publish(ctx, "custody.arrest", 0, 100, 100)
		one, two := newReplay(a.ns, "one", everything()), newReplay(a.ns, "two", everything())
		for _, o := range []*v1alpha1.Replay{one, two} {
			o.Spec.Rate = 1
			create(ctx, o)
			Eventually(sent(ctx, o)).Should(BeNumerically(">", 0))
		}
		change(ctx, one, func(o *v1alpha1.Replay) { o.Spec.Suspend = new(true) })
		Eventually(condition(ctx, one, "Ready")).Should(HavePrefix("False/Suspended"))
		Expect(a.js.DeleteStream(ctx, a.stream())).To(Succeed())
		Eventually(condition(ctx, two, "Failed")).WithTimeout(30 * time.Second).Should(HavePrefix("True/StreamReplaced"))
		Expect(condition(ctx, two, "Stalled")()).To(HavePrefix("True/StreamReplaced"))
		Expect(condition(ctx, two, "Ready")()).To(HavePrefix("False/StreamReplaced"))
		remove(ctx, a.route)
		Eventually(gone(ctx, a.route)).Should(Succeed())
		Eventually(condition(ctx, one, "ResolvedRefs")).Should(HavePrefix("False/RouteNotFound"))
		create(ctx, newRoute(a.ns, "arrests", "custody", "court"))
		Eventually(condition(ctx, one, "Failed")).Should(HavePrefix("True/RouteReplaced"))
		change(ctx, two, func(o *v1alpha1.Replay) { o.Spec.TTLSecondsAfterFinished = new(int32(0)) })
		Eventually(gone(ctx, two)).Should(Succeed())
	})

	It("goes by itself when its time is over, and not before", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		o := newReplay(a.ns, "nothing", everything())
		o.Spec.TTLSecondsAfterFinished = new(int32(3))
		stays := newReplay(a.ns, "stays", everything())
		create(ctx, o, stays)
		completed(ctx, o)
		completed(ctx, stays)
		Eventually(gone(ctx, o)).Should(Succeed())
		Expect(time.Since(o.Status.CompletedAt.Time)).To(BeNumerically(">=", 2*time.Second))
		Expect(api.Get(ctx, client.ObjectKeyFromObject(stays), stays)).To(Succeed())
	})

	It("keeps its word when it is changed after its end", func(ctx SpecContext) {
		a := newArea(ctx, nil)
		o := newReplay(a.ns, "again", everything())
		create(ctx, o)
		completed(ctx, o)
		change(ctx, o, func(o *v1alpha1.Replay) { o.Spec.Suspend = new(true) })
		Eventually(condition(ctx, o, "Ready")).Should(HavePrefix("True/Completed"))
		remove(ctx, a.route)
		Consistently(condition(ctx, o, "Ready")).WithTimeout(3 * time.Second).Should(HavePrefix("True/Completed"))
	})
})
