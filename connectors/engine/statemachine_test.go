package engine

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
)

// machines that keep what they are given, as the relay's do.
func machines() map[string]machine {
	o := &relayOperation{route: "r", destination: "d", eventType: "x"}
	return map[string]machine{
		"aggregate": &aggregator{Aggregate: contract.Aggregate{Count: 1000}, event: func(key string, group uint64, members []member, why string) storedEvent {
			return o.groupEvent("uid", key, group, members, why)
		}},
		"resequence": &resequencer{Resequence: contract.Resequence{Start: 1, Timeout: contract.Duration(time.Hour)}, event: o.storedEvent},
	}
}

// A document fits into a message of the broker whatever it is made of: one that does not could never be written again, and what waits in it would
// wait for ever.
func TestDocumentsFit(t *testing.T) {
	sizes := map[string]func(r *rand.Rand) (body, attributes int){
		"large bodies":             func(*rand.Rand) (int, int) { return contract.MaxMemberBytes, 10 },
		"large attributes":         func(*rand.Rand) (int, int) { return 2, 40 << 10 },
		"large attributes, quoted": func(*rand.Rand) (int, int) { return 2, -30 << 10 },
		"small ones and large ones": func(r *rand.Rand) (int, int) {
			if r.IntN(50) == 0 {
				return contract.MaxMemberBytes, 10
			}
			return 2, 10
		},
		"any": func(r *rand.Rand) (int, int) {
			return 2 + r.IntN(contract.MaxMemberBytes/(1+r.IntN(1000))), r.IntN(60 << 10)
		},
	}
	for kind, m := range machines() {
		for name, size := range sizes {
			t.Run(kind+" "+name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				doc := &stateDoc{Key: strings.Repeat("k", 256)}
				largest := 0
				for n := range 250 {
					body, attributes := size(r)
					message := delivery(fmt.Sprint("id-", n), `"`+strings.Repeat("x", body-2)+`"`)
					message.Headers = map[string]string{"marking": strings.Repeat(cmp.Or(strings.Repeat(`\`, max(0, -attributes/(30<<10))), "m"), max(attributes, -attributes))}
					if n%7 == 0 {
						doc = doc.published()
					} else {
						doc = doc.clone()
					}
					if doc.outBytes(0) >= maxOut {
						continue
					}
					// Every number but the odd ones, so that all of them wait.
					if err := m.take(doc, &input{Delivery: message, number: int64(2 * (250 - n))}, time.Now()); err != nil && len(doc.Waiting)+len(doc.Members) == 0 {
						t.Fatal(err)
					}
					if n%7 < 5 && n > 30 { // when it is largest, for encoding takes time
						continue
					}
					raw, err := doc.encode()
					if err != nil {
						t.Fatal(err)
					}
					largest = max(largest, len(raw))
				}
				if limit := contract.MaxMessageSize; largest > limit {
					t.Errorf("a document has %d bytes, and %d are carried", largest, limit)
				}
			})
		}
	}
}

// The message that all wait for passes, also when no more may wait.
func TestTheAwaitedNumberPasses(t *testing.T) {
	m := machines()["resequence"]
	doc := &stateDoc{}
	for n := range contract.MaxMembers {
		if err := m.take(doc, &input{Delivery: delivery(fmt.Sprint(n), "{}"), number: int64(n + 2)}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if len(doc.Out) > 0 || len(doc.Waiting) != contract.MaxMembers {
		t.Fatalf("%d wait and %d have passed", len(doc.Waiting), len(doc.Out))
	}
	if err := m.take(doc, &input{Delivery: delivery("awaited", "{}"), number: 1}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if len(doc.Out) != contract.MaxMembers+1 || len(doc.Waiting) != 0 || doc.Bytes != 0 {
		t.Errorf("%d wait with %d bytes, and %d have passed", len(doc.Waiting), doc.Bytes, len(doc.Out))
	}
}

// A group that is the first of its key again, for the key was forgotten, is another message to systems that know ids.
func TestGroupsHaveIDsOfTheirOwn(t *testing.T) {
	m := machines()["aggregate"].(*aggregator)
	m.Count = 1
	ids := map[string]bool{}
	for n := range 3 {
		doc := &stateDoc{Key: "k"}
		if err := m.take(doc, &input{Delivery: delivery(fmt.Sprint("id-", n), "{}")}, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{headerMsgID, contract.HeaderID} {
			ids[doc.Out[0].Header[name]] = true
		}
	}
	if len(ids) != 6 {
		t.Errorf("three groups have %d ids of two kinds", len(ids))
	}
}

func TestAlarmsAreBounded(t *testing.T) {
	a := newAlarms(func(string) {})
	base := time.Now().Add(time.Hour)
	for n := range 3 * maxAlarms {
		a.set(fmt.Sprint(n), base.Add(time.Duration(-n)*time.Millisecond)) // each is earlier than those before
	}
	if len(a.by) != maxAlarms || len(a.order) != maxAlarms {
		t.Fatalf("%d and %d alarms", len(a.by), len(a.order))
	}
	if last := fmt.Sprint(3*maxAlarms - 1); !a.has(last) || a.order[0].subject != last {
		t.Error("the earliest was given up")
	}
	if at := a.takeMissed(); at.IsZero() || at.Before(a.order[0].at) || !a.takeMissed().IsZero() {
		t.Errorf("missed %s", at)
	}
	a.set(a.order[0].subject, time.Time{})
	if len(a.by) != maxAlarms-1 {
		t.Error("one that is not wanted any more stays")
	}
}

func TestAlarmsRing(t *testing.T) {
	rung := make(chan string, 100)
	a := newAlarms(func(subject string) { rung <- subject })
	go a.run(t.Context())
	for n := range 40 {
		a.set(fmt.Sprint(n), time.Now().Add(time.Duration(n%4)*50*time.Millisecond))
	}
	a.set("7", time.Time{})
	got := map[string]bool{}
	for range 39 {
		select {
		case subject := <-rung:
			got[subject] = true
		case <-time.After(30 * time.Second):
			t.Fatalf("only %d have rung", len(got))
		}
	}
	if len(got) != 39 || got["7"] {
		t.Errorf("%v", got)
	}
}
