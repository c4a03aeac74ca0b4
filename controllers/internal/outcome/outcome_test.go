package outcome

import (
	"errors"
	"fmt"
	"testing"
)

func TestClassesSurviveWrapping(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		class Class
	}{
		{"refused", Refuse("InvalidSpec", "no"), Terminal},
		{"stalled", Stall("NameTaken", "taken"), Terminal},
		{"waiting", Wait("Pending", "soon"), Waiting},
		{"retried", Retry("ProgrammingFailed", "again"), Transient},
		{"foreign", errors.New("boom"), Transient},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("doing something: %w", c.err), errors.Join(errors.New("other"), c.err)} {
				if class, _ := Of(err); class != c.class {
					t.Errorf("Of(%v) = %v, want %v", err, class, c.class)
				}
			}
		})
	}
	if IsTerminal(nil) {
		t.Error("nil is not terminal")
	}
	if e := Stall("NameTaken", "taken"); e.After == 0 {
		t.Error("a stalled object must be looked at again")
	}
}
