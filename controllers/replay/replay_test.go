package replay

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

func routeTo(names ...v1alpha1.ObjectName) *v1alpha1.Route {
	r := &v1alpha1.Route{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "arrests", UID: "r-1"}}
	r.Spec.IntegrationRef.Name = "default"
	r.Spec.From = []v1alpha1.RouteFrom{{Connector: "custody", Types: []string{"arrest"}}}
	for _, n := range names {
		r.Spec.To = append(r.Spec.To, v1alpha1.Destination{Name: n, Connector: n})
	}
	return r
}

func replayOf(from v1alpha1.ReplaySource) *v1alpha1.Replay {
	return &v1alpha1.Replay{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "again", UID: "u-1", Generation: 3},
		Spec:       v1alpha1.ReplaySpec{To: v1alpha1.ReplayTarget{Route: "arrests"}, From: from, Rate: 500},
	}
}

func TestSelection(t *testing.T) {
	from, to := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	base := bus.Replay{
		Namespace: "ns", Integration: "default", Route: "arrests", Destination: "court", Name: "again", UID: "u-1",
		Filters: []string{"evt.ns.default.custody.*.arrest"},
	}
	for _, c := range []struct {
		name string
		from v1alpha1.ReplaySource
		want func(*bus.Replay)
	}{
		{"a time", v1alpha1.ReplaySource{Time: &v1alpha1.ReplayTime{From: from, To: &to}}, func(r *bus.Replay) { r.Since, r.Until = from.Time, to.Time }},
		{"a time that is open", v1alpha1.ReplaySource{Time: &v1alpha1.ReplayTime{From: from}}, func(r *bus.Replay) { r.Since = from.Time }},
		{"sequences", v1alpha1.ReplaySource{Sequences: &v1alpha1.ReplaySequences{First: 5, Last: new(int64(9))}}, func(r *bus.Replay) { r.First, r.Last = 5, 9 }},
		{"sequences that are open", v1alpha1.ReplaySource{Sequences: &v1alpha1.ReplaySequences{First: 5}}, func(r *bus.Replay) { r.First = 5 }},
		{"ids", v1alpha1.ReplaySource{IDs: []v1alpha1.MessageID{"a", "b"}}, func(r *bus.Replay) { r.IDs = []string{"a", "b"} }},
		{"all dead letters", v1alpha1.ReplaySource{DeadLetters: &v1alpha1.ReplayDeadLetters{}}, func(r *bus.Replay) { r.Dead = true }},
		{"some dead letters", v1alpha1.ReplaySource{DeadLetters: &v1alpha1.ReplayDeadLetters{
			Reasons: []string{"Rejected"}, IDs: []v1alpha1.MessageID{"a"}, Time: &v1alpha1.ReplayTime{From: from, To: &to},
		}}, func(r *bus.Replay) {
			r.Dead, r.Reasons, r.IDs, r.Since, r.Until = true, []string{"Rejected"}, []string{"a"}, from.Time, to.Time
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := base
			c.want(&want)
			if diff := cmp.Diff(want, buildReplay(replayOf(c.from), routeTo("court"), "court")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDestination(t *testing.T) {
	named, begun := replayOf(v1alpha1.ReplaySource{}), replayOf(v1alpha1.ReplaySource{})
	named.Spec.To.Destination = "court"
	begun.Status.Plan = &v1alpha1.ReplayPlan{Destination: "court"}
	for _, c := range []struct {
		name   string
		replay *v1alpha1.Replay
		route  *v1alpha1.Route
		want   v1alpha1.ObjectName
	}{
		{"the only one", replayOf(v1alpha1.ReplaySource{}), routeTo("court"), "court"},
		{"none is named, and there are two", replayOf(v1alpha1.ReplaySource{}), routeTo("court", "archive"), ""},
		{"a Route without destinations", replayOf(v1alpha1.ReplaySource{}), routeTo(), ""},
		{"named", named, routeTo("archive", "court"), "court"},
		{"named, and not there", named, routeTo("archive"), ""},
		{"another was added since it began", begun, routeTo("archive", "court"), "court"},
		{"its own was removed since it began", begun, routeTo("archive"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := destinationOf(c.replay, c.route)
			if c.want != "" && (err != nil || got != c.want) {
				t.Errorf("got %q, %v", got, err)
			}
			if _, e := outcome.Of(err); c.want == "" && (e == nil || e.Reason != v1alpha1.ReasonDestinationNotFound || e.Class != outcome.Waiting) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestTakesCopies(t *testing.T) {
	whole := bus.DurableState{Filters: []string{"evt.ns.i.src.*.>", "rpl.ns.i.r.d.*", "mark.ns.i"}}
	before := bus.DurableState{Filters: []string{"evt.ns.i.src.*.>", "mark.ns.i"}}
	other := bus.DurableState{Filters: []string{"rpl.ns.i.r.d2.*"}}
	lane := func(i int) bus.DurableState {
		return bus.DurableState{Filters: contract.LaneFilters([]string{"evt.ns.i.src.*.>", "rpl.ns.i.r.d.*"}, 4, i)}
	}
	for _, c := range []struct {
		name     string
		durables []bus.DurableState
		want     bool
	}{
		{"none", nil, false},
		{"one", []bus.DurableState{whole}, true},
		{"one from before there were Replays", []bus.DurableState{before}, false},
		{"one that drains beside the new one", []bus.DurableState{before, whole}, true},
		{"another destination's", []bus.DurableState{other}, false},
		{"all lanes", []bus.DurableState{lane(0), lane(1), lane(2), lane(3)}, true},
		{"a lane is missing", []bus.DurableState{lane(0), lane(1), lane(3)}, false},
	} {
		if got := takesCopies(c.durables, "ns", "i", "r", "d"); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestStatus(t *testing.T) {
	counts := &v1alpha1.ReplayCounts{Matched: 10, Sent: 4, Remaining: 6, Missing: 1}
	oldest := metav1.NewTime(time.Unix(5000, 0))
	plan := &v1alpha1.ReplayPlan{LastSequence: 10, Oldest: &oldest}
	session := &refs.Area{Session: struct{ bus.Session }{}, Integration: &v1alpha1.Integration{}}
	for _, c := range []struct {
		name     string
		change   func(*scope)
		err      error
		on       string
		ready    string
		complete string
	}{
		{"counting", func(s *scope) { s.stage = stageCounting }, nil, "", "False/Counting: messages are counted", "False/Counting: messages are counted"},
		{"replaying", func(s *scope) { s.stage = stageReplaying }, nil, "", "False/Replaying: messages are put on the bus again", "False/Replaying: messages are put on the bus again"},
		{"suspended", func(s *scope) { s.replay.Spec.Suspend = new(true) }, nil, "", "False/Suspended: spec.suspend is set", "False/Suspended: spec.suspend is set"},
		{
			"full", func(s *scope) { s.stage = stageReplaying }, busOutcome(fmt.Errorf("x: %w", bus.ErrFull)), v1alpha1.ConditionComplete,
			"False/StreamFull: x: the stream is full: the Replay goes on when delivered messages were trimmed, or spec.retention.size of the Integration is raised",
			"False/StreamFull: x: the stream is full: the Replay goes on when delivered messages were trimmed, or spec.retention.size of the Integration is raised",
		},
		{
			"the broker is away", func(s *scope) { s.stage = stageReplaying }, busOutcome(fmt.Errorf("x: %w", bus.ErrUnreachable)), v1alpha1.ConditionProgrammed,
			"Unknown/BrokerNotReady: x: the broker does not answer", "Unknown/Pending: waits for Programmed",
		},
		{
			"no Route", func(*scope) {}, unresolved(v1alpha1.ReasonRouteNotFound, "no"), v1alpha1.ConditionResolvedRefs,
			"False/RouteNotFound: no", "Unknown/Pending: waits for ResolvedRefs",
		},
		{
			"another stream", func(*scope) {}, busOutcome(bus.ErrReplaced), v1alpha1.ConditionFailed,
			"False/StreamReplaced: the stream was made anew: create another Replay", "False/ReplayFailed: the stream was made anew: create another Replay",
		},
		{
			"the API server is away", func(*scope) {}, errors.New("away"), v1alpha1.ConditionResolvedRefs,
			"Unknown/Pending: the operator tries again", "Unknown/Pending: waits for ResolvedRefs",
		},
		{"complete", func(s *scope) { s.stage = stageComplete }, nil, "", "True/Completed: 4 messages were replayed; 1 are missing", "True/Completed: 4 messages were replayed; 1 are missing"},
		{
			"a dry run of a time that reaches back too far", func(s *scope) {
				s.stage, s.replay.Spec.DryRun, s.replay.Status.Counts.Missing = stageComplete, new(true), 0
				s.replay.Spec.From.Time = &v1alpha1.ReplayTime{From: metav1.NewTime(time.Unix(4000, 0))}
			}, nil, "",
			"True/Completed: a dry run: 10 messages would be replayed; the bus held no message from before 1970-01-01T01:23:20Z",
			"True/Completed: a dry run: 10 messages would be replayed; the bus held no message from before 1970-01-01T01:23:20Z",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scope{replay: replayOf(v1alpha1.ReplaySource{}), run: &run{}, now: time.Unix(9000, 0), route: routeTo("court"), destination: "court", area: *session}
			s.replay.Status.Counts, s.replay.Status.Plan = counts.DeepCopy(), plan
			c.change(s)
			setStatus(s, c.err, c.on)
			st := s.replay.Status
			text := func(condition string) string {
				c := meta.FindStatusCondition(st.Conditions, condition)
				if c == nil {
					return ""
				}
				if c.ObservedGeneration != 3 {
					t.Errorf("%s speaks of generation %d", condition, c.ObservedGeneration)
				}
				return fmt.Sprintf("%s/%s: %s", c.Status, c.Reason, c.Message)
			}
			if got := text(v1alpha1.ConditionReady); got != c.ready {
				t.Errorf("Ready is %s\nwant     %s", got, c.ready)
			}
			if got := text(v1alpha1.ConditionComplete); got != c.complete {
				t.Errorf("Complete is %s\nwant        %s", got, c.complete)
			}
			if over := c.on == v1alpha1.ConditionFailed || s.stage == stageComplete; over != (st.CompletedAt != nil) || over != finished(s.replay) {
				t.Errorf("completed at %v", st.CompletedAt)
			}
			if st.Progress != "4/10" || st.To != "arrests/court" {
				t.Errorf("progress %s to %s", st.Progress, st.To)
			}
		})
	}
}

func TestTaken(t *testing.T) {
	if taken(nil, 5) {
		t.Error("no durable consumer has taken anything")
	}
	if taken([]bus.DurableState{{AckFloor: 5}, {AckFloor: 4}}, 5) {
		t.Error("one lane has not")
	}
	if !taken([]bus.DurableState{{AckFloor: 5}, {AckFloor: 7}}, 5) {
		t.Error("both lanes have")
	}
}
