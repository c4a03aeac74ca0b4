package steps

import (
	"context"
	"fmt"
	"time"

	"cel.dev/cel-go/common/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// NotBefore is the error of a delay whose time has not come: the message is to be given to the steps again at that time, as it was.
type NotBefore struct{ At time.Time }

func (e *NotBefore) Error() string { return "not before " + e.At.UTC().Format(time.RFC3339Nano) }

// delayStep holds a message back until a time.
type delayStep struct {
	wait  time.Duration
	until *Value
}

func compileDelay(d *contract.Delay) (Step, error) {
	switch {
	case d.Until != "":
		p, err := compile(d.Until)
		if err == nil {
			if k := p.output.Kind(); k != types.TimestampKind && k != types.StringKind && k != types.DynKind {
				err = &Error{1, 1, fmt.Sprintf("the expression yields %s, not a timestamp: write for example timestamp(data.at)", p.output)}
			}
		}
		if err != nil {
			return nil, &FieldError{Field: "delay.until", Value: d.Until, Err: err}
		}
		return &delayStep{until: &Value{*p}}, nil
	case d.For <= 0 || time.Duration(d.For) > contract.MaxDelay:
		return nil, &FieldError{Field: "delay.for", Value: time.Duration(d.For).String(), Err: fmt.Errorf("it must be more than 0 and at most %s", contract.MaxDelay)}
	default:
		return &delayStep{wait: time.Duration(d.For)}, nil
	}
}

// Apply implements Step. The message passes once its time has come; until then the error is a *NotBefore.
func (s *delayStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	stored := m.Stored
	if stored.IsZero() {
		stored = time.Now()
	}
	at := stored.Add(s.wait)
	if s.until != nil {
		var err error
		if at, err = s.until.timestamp(m); err != nil {
			return false, err
		}
		if at.Sub(stored) > contract.MaxDelay {
			return false, fmt.Errorf("until is %s, more than %d days after the message was stored", at.UTC().Format(time.RFC3339), contract.MaxDelay/(24*time.Hour))
		}
	}
	if time.Now().Before(at) {
		return false, &NotBefore{at}
	}
	return true, nil
}

// timestamp that an expression yields; a text is read as RFC 3339 has it.
func (v *Value) timestamp(m *sdk.Message) (time.Time, error) {
	x, err := v.Eval(m)
	if err != nil {
		return time.Time{}, err
	}
	switch x := x.(type) {
	case time.Time:
		return x, nil
	case string:
		t, err := time.Parse(time.RFC3339Nano, x)
		if err != nil {
			return t, fmt.Errorf("until yields %.60q, which is no time as RFC 3339 has it, for example 2026-11-22T10:00:00Z", x)
		}
		return t, nil
	default:
		return time.Time{}, fmt.Errorf("until yields %T, not a timestamp", x)
	}
}

// throttleStep lets everything pass: the engine spaces what reaches the system.
type throttleStep struct{}

func compileThrottle(t *contract.Throttle) (Step, error) {
	if t.Rate < 1 || t.Per <= 0 {
		return nil, &FieldError{Field: "throttle.rate", Value: fmt.Sprint(t.Rate), Err: fmt.Errorf("rate must be at least 1, and per more than 0")}
	}
	return throttleStep{}, nil
}

// Apply implements Step.
func (throttleStep) Apply(context.Context, *sdk.Message) (bool, error) { return true, nil }
