package steps

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestDelay(t *testing.T) {
	now := time.Now()
	in := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339Nano) }
	for name, c := range map[string]struct {
		delay contract.Delay
		body  string
		// wait until the message may pass; 0: it passes now; fails: the error's text.
		wait  time.Duration
		fails string
	}{
		"for, not over":        {contract.Delay{For: contract.Duration(time.Hour)}, `{}`, 50 * time.Minute, ""},
		"for, over":            {contract.Delay{For: contract.Duration(time.Minute)}, `{}`, 0, ""},
		"for, of no JSON":      {contract.Delay{For: contract.Duration(time.Hour)}, `<x/>`, 50 * time.Minute, ""},
		"until a timestamp":    {contract.Delay{Until: "timestamp(data.at)"}, `{"at": "` + in(time.Hour) + `"}`, time.Hour, ""},
		"until a text":         {contract.Delay{Until: "data.at"}, `{"at": "` + in(time.Hour) + `"}`, time.Hour, ""},
		"until a sum":          {contract.Delay{Until: "time + duration('30m')"}, `{}`, 30 * time.Minute, ""},
		"until the past":       {contract.Delay{Until: "timestamp(data.at)"}, `{"at": "` + in(-time.Hour) + `"}`, 0, ""},
		"until no time":        {contract.Delay{Until: "data.at"}, `{"at": "tomorrow"}`, 0, `until yields "tomorrow"`},
		"until a number":       {contract.Delay{Until: "data.at"}, `{"at": 7}`, 0, "not a timestamp"},
		"until nothing":        {contract.Delay{Until: "data.at"}, `{}`, 0, "no such key"},
		"until the far future": {contract.Delay{Until: "data.at"}, `{"at": "` + in(31*24*time.Hour) + `"}`, 0, "more than 30 days"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Compile(contract.Step{Delay: &c.delay})
			if err != nil {
				t.Fatal(err)
			}
			m := &sdk.Message{ID: "m", Time: now, Stored: now.Add(-10 * time.Minute), Data: []byte(c.body)}
			pass, err := s.Apply(t.Context(), m)
			var due *NotBefore
			switch {
			case c.fails != "":
				if err == nil || errors.As(err, &due) || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%v, want %q", err, c.fails)
				}
			case c.wait == 0:
				if !pass || err != nil {
					t.Errorf("pass %v, %v", pass, err)
				}
			case !errors.As(err, &due) || !due.At.Round(0).Equal(now.Add(c.wait).Round(0)):
				t.Errorf("%v, want %s", err, now.Add(c.wait))
			}
		})
	}
}

func TestDelayDoesNotCompile(t *testing.T) {
	for want, s := range map[string]contract.Step{
		"delay.until: line 1, column 1: the expression yields int": {Delay: &contract.Delay{Until: "1 + 1"}},
		"delay.until: line 1, column 6":                            {Delay: &contract.Delay{Until: "data."}},
		"delay.for: it must be more than 0":                        {Delay: &contract.Delay{For: contract.Duration(721 * time.Hour)}},
		"throttle.rate: rate must be":                              {Throttle: &contract.Throttle{Per: contract.Duration(time.Second)}},
	} {
		if _, err := Compile(s); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
