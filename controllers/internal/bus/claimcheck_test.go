package bus

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

// TestClaimsOutliveTheirUploads: what the cleaner takes for an orphan is older than any upload that may still name it.
func TestClaimsOutliveTheirUploads(t *testing.T) {
	if least := orphanLooks * defaultTrimInterval; least < 3*contract.ClaimTimeout {
		t.Errorf("a claim that was never named goes after %s, and an upload may take %s", least, contract.ClaimTimeout)
	}
	now := time.Now()
	for name, try := range map[string]struct {
		claim claimState
		free  bool
	}{
		"young":                  {claimState{last: now}, false},
		"orphan":                 {claimState{last: now.Add(-time.Hour)}, true},
		"given up":               {claimState{last: now, void: true}, true},
		"given up, and named":    {claimState{last: now, void: true, wasNamed: true}, false},
		"named a moment ago":     {claimState{last: now.Add(-time.Hour), wasNamed: true}, false},
		"named some minutes ago": {claimState{last: now.Add(-time.Hour), wasNamed: true, unnamed: now.Add(-10 * time.Minute)}, true},
	} {
		if got := try.claim.free(now, defaultTrimInterval); got != try.free {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestCrowdSparesDeadLettersAndWhatIsOnItsWayOut.
func TestCrowdSparesDeadLettersAndWhatIsOnItsWayOut(t *testing.T) {
	info := &jetstream.StreamInfo{}
	info.Config.MaxBytes, info.State.Bytes = 100, 100
	x := newClaimIndex("ns", "in", "")
	for id, named := range map[string]uint64{"a": 5, "b": 10, "c": 20, "d": 30, "e": 0} {
		x.claims[id] = &claimState{bytes: 20}
		if named > 0 {
			x.named[id] = named
		}
	}
	x.dead["b"] = []uint64{1}
	// a is out of the events already (80 are left), b is a dead letter's; c and d make room (40).
	if goal := x.crowd(info, 6); goal != 31 {
		t.Errorf("events are trimmed up to %d", goal)
	}
	info.State.Bytes = 90
	if goal := x.crowd(info, 6); goal != 21 {
		t.Errorf("events are trimmed up to %d", goal)
	}
	info.State.Bytes = 60
	if goal := x.crowd(info, 6); goal != 0 {
		t.Errorf("events are trimmed up to %d, and there is room", goal)
	}
}
