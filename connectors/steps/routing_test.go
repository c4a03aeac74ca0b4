package steps

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestSetHeaders(t *testing.T) {
	step := mustStep(t, contract.Step{SetHeaders: map[string]string{
		"court": "{data.court.code}", "subject": "{data.arrestId}/{subject}", "old": "", "gone": "{has(data.x) ? data.x : ''}", "marked": "{headers.marking}: {headers.old}",
	}})
	m := message()
	m.Headers["old"], m.Headers["gone"] = "1", "2"
	if pass, err := step.Apply(t.Context(), m); !pass || err != nil {
		t.Fatal(pass, err)
	}
	if d := cmp.Diff(map[string]string{"marking": "OFFICIAL", "court": "B01", "marked": "OFFICIAL: 1"}, m.Headers); d != "" || m.Subject != "A-17/A-17" {
		t.Error(m.Subject, d)
	}
	m = &sdk.Message{Data: []byte(`{}`), Subject: "s"}
	if pass, err := mustStep(t, contract.Step{SetHeaders: map[string]string{"a": "1", "subject": ""}}).Apply(t.Context(), m); !pass || err != nil || m.Headers["a"] != "1" || m.Subject != "" {
		t.Error(m.Headers, pass, err)
	}
	for name, want := range map[string]string{
		"id": "CloudEvents' own", "type": "CloudEvents' own", "dataschema": "CloudEvents' own", "marking": "the protective marking is the Integration's", "partitionkey": "the order that",
		"traceparent": "the trace is", "Nats-Msg-Id": "a name is 1 to 40", "metip-accepted": "a name is", "": "a name is", strings.Repeat("a", 41): "a name is", "é": "a name is",
	} {
		_, err := Compile(contract.Step{SetHeaders: map[string]string{name: "x"}})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "setHeaders["+name+"]" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	_, err := Compile(contract.Step{SetHeaders: map[string]string{"a": "x", "b": "{nope}"}})
	if err == nil || !strings.HasPrefix(err.Error(), "setHeaders[b]: line 1, column 2: undeclared") {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range maxHeaders {
		many[fmt.Sprintf("h%d", i)] = "1"
	}
	for want, headers := range map[string]map[string]string{
		"a: {data.nope}: no such key: nope": {"a": "{data.nope}"}, "a: the value has 4097 bytes": {"a": "{'" + strings.Repeat("x", 2000) + "'}{'" + strings.Repeat("x", 2097) + "'}"},
		"the message has 35 extension attributes": many,
	} {
		m := message()
		m.Headers["other"], m.Headers["another"], m.Headers["traceparent"], m.Headers["http-accept"] = "1", "2", "3", "4"
		if _, err := mustStep(t, contract.Step{SetHeaders: headers}).Apply(t.Context(), m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestRecipientList(t *testing.T) {
	apply := func(cel, destination string) (bool, error) {
		return mustStep(t, contract.Step{RecipientList: &contract.RecipientList{CEL: cel, Destination: destination, Destinations: []string{"crown", "magistrates", "press"}}}).Apply(t.Context(), message())
	}
	const list = `data.court.code.startsWith("B") ? ["crown", "press"] : ["magistrates"]`
	for destination, want := range map[string]bool{"crown": true, "press": true, "magistrates": false} {
		if pass, err := apply(list, destination); pass != want || err != nil {
			t.Error(destination, pass, err)
		}
	}
	for cel, want := range map[string]bool{"[]": false, "['crown', 'crown']": true, "data.tags.map(t, 'crown')": true} {
		if pass, err := apply(cel, "crown"); pass != want || err != nil {
			t.Error(cel, pass, err)
		}
	}
	for cel, want := range map[string]string{
		"['crown', 'county']": `the list names "county", which is none of the Route's destinations that it can choose: crown, magistrates, press`,
		"'crown'":             "the expression yields no list", "[1]": "the list holds something else", "data.tags": `the list names "a"`, "[data.nope]": "no such key: nope",
	} {
		if pass, err := apply(cel, "crown"); pass || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", cel, pass, err)
		}
	}
	_, err := Compile(contract.Step{RecipientList: &contract.RecipientList{CEL: "[nope]"}})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "recipientList.cel" {
		t.Error(err)
	}
}

func TestLoadBalance(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		balance contract.LoadBalance
		// want of each destination of 100,000 messages that were accepted before the first change, and after each.
		want []map[string]float64
	}{
		"weights":  {contract.LoadBalance{Weights: map[string]int32{"a": 3, "b": 1}}, []map[string]float64{{"a": .75, "b": .25}}},
		"one":      {contract.LoadBalance{Weights: map[string]int32{"c": 1}}, []map[string]float64{{"c": 1}}},
		"weight 0": {contract.LoadBalance{Weights: map[string]int32{"a": 0, "b": 1000, "c": 1000}}, []map[string]float64{{"b": .5, "c": .5}}},
		"key":      {contract.LoadBalance{Key: "data.n", Weights: map[string]int32{"a": 1, "b": 1, "c": 1, "d": 1}}, []map[string]float64{{"a": .25, "b": .25, "c": .25, "d": .25}}},
		"weights that change": {contract.LoadBalance{Weights: map[string]int32{"a": 9, "b": 1}, Changes: []contract.WeightChange{
			{From: at(2), Weights: map[string]int32{"a": 1, "b": 1}}, {From: at(4), Weights: map[string]int32{"b": 1, "d": 4}},
		}}, []map[string]float64{{"a": .9, "b": .1}, {"a": .5, "b": .5}, {"b": .2, "d": .8}}},
	} {
		t.Run(name, func(t *testing.T) {
			pods := map[string]Step{}
			for _, n := range names {
				b := c.balance
				b.Destination = n
				pods[n] = mustStep(t, contract.Step{LoadBalance: &b})
			}
			const messages = 20000
			for period, want := range c.want {
				got := map[string]float64{}
				for i := range messages {
					m := &sdk.Message{ID: fmt.Sprintf("%d-%d", period, i), Source: "/metip/a/b", Data: fmt.Appendf(nil, `{"n":%d}`, i), Accepted: at(2 * period).Add(time.Duration(i)).Format(time.RFC3339Nano)}
					chosen := 0
					for _, n := range names {
						pass, err := pods[n].Apply(t.Context(), m)
						if err != nil {
							t.Fatal(err)
						}
						if pass {
							chosen++
							got[n]++
						}
					}
					if chosen != 1 {
						t.Fatalf("message %d goes to %d destinations", i, chosen)
					}
				}
				for _, n := range names {
					if share := got[n] / messages; math.Abs(share-want[n]) > 0.02 {
						t.Errorf("period %d: %s gets %v, want %v", period, n, share, want[n])
					}
				}
			}
		})
	}
}

// Pods of different releases must choose alike: these are never to change.
func TestLoadBalanceStaysTheSame(t *testing.T) {
	got := ""
	for i := range 40 {
		m := &sdk.Message{ID: fmt.Sprint("id-", i), Source: "/metip/ns/custody", Accepted: "nonsense"}
		for _, n := range []string{"a", "b", "c"} {
			b := &contract.LoadBalance{Destination: n, Weights: map[string]int32{"a": 1, "b": 2, "c": 3}, Changes: []contract.WeightChange{{From: time.Unix(0, 0), Weights: map[string]int32{"a": 1}}}}
			if pass, _ := mustStep(t, contract.Step{LoadBalance: b}).Apply(t.Context(), m); pass {
				got += n
			}
		}
	}
	if want := "cccccccccbcaacbccccacbccccbbbcccccababcc"; got != want {
		t.Error(got)
	}
}

func TestLoadBalanceErrors(t *testing.T) {
	at := time.Unix(1e9, 0)
	good := map[string]int32{"a": 1}
	for want, b := range map[string]contract.LoadBalance{
		"loadBalance.weights: one of the weights must be more":   {Weights: map[string]int32{"a": 0}},
		"loadBalance.weights: the weight of a must be 0 to 1000": {Weights: map[string]int32{"a": 1001}},
		"loadBalance.key: line 1, column 1: undeclared":          {Weights: good, Key: "nope"},
		"loadBalance.changes[1]: each from must be later":        {Weights: good, Changes: []contract.WeightChange{{From: at, Weights: good}, {From: at, Weights: good}}},
		"loadBalance.changes[0]: one of the weights must be":     {Weights: good, Changes: []contract.WeightChange{{From: at}}},
	} {
		if _, err := Compile(contract.Step{LoadBalance: &b}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for key, want := range map[string]string{"data.nope": "key: no such key: nope", "data.tags": "key: is a list", "data.none": "key: is null"} {
		if _, err := mustStep(t, contract.Step{LoadBalance: &contract.LoadBalance{Weights: good, Key: key}}).Apply(t.Context(), message()); err == nil || err.Error() != want && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func BenchmarkRouting1KiB(b *testing.B) {
	weights := map[string]int32{"a": 1, "b": 3}
	for name, step := range map[string]contract.Step{
		"setHeaders":      {SetHeaders: map[string]string{"court": "{data.court.code}", "subject": "{data.arrestId}"}},
		"recipientList":   {RecipientList: &contract.RecipientList{CEL: `data.disposal == "court" ? ["a"] : ["b"]`, Destination: "a", Destinations: []string{"a", "b"}}},
		"loadBalance":     {LoadBalance: &contract.LoadBalance{Destination: "a", Weights: weights}},
		"loadBalance key": {LoadBalance: &contract.LoadBalance{Destination: "a", Weights: weights, Key: "data.detainee.personId"}},
	} {
		b.Run(name, func(b *testing.B) {
			s := mustStep(b, step)
			data := []byte(record)
			done := perCore(b)
			for b.Loop() {
				m := sdk.Message{ID: "17", Source: "/metip/a/b", Data: data}
				if _, err := s.Apply(b.Context(), &m); err != nil {
					b.Fatal(err)
				}
			}
			done()
		})
	}
}
